//! The flags of the audit log, by upstream's names.

use std::path::PathBuf;

use apiserver::audit::{LogSettings, Policy, Settings};
use clap::Args;

use crate::Failure;

/// What is recorded of requests, and where.
#[derive(Args, Clone, Debug)]
pub(super) struct AuditArgs {
    /// File with the policy (audit.k8s.io/v1) that says which requests are recorded.
    #[arg(long, value_name = "FILE", requires = "audit_log_path", env = "SKIFF_AUDIT_POLICY_FILE")]
    audit_policy_file: Option<PathBuf>,
    /// File of the audit log; - is the standard output.
    #[arg(long, value_name = "FILE", requires = "audit_policy_file", env = "SKIFF_AUDIT_LOG_PATH")]
    audit_log_path: Option<PathBuf>,
    /// Days after which old audit logs are removed; 0 keeps them.
    #[arg(long, value_name = "DAYS", default_value_t = 366, env = "SKIFF_AUDIT_LOG_MAXAGE")]
    audit_log_maxage: u32,
    /// How many old audit logs are kept; 0 keeps all.
    #[arg(long, value_name = "COUNT", default_value_t = 100, env = "SKIFF_AUDIT_LOG_MAXBACKUP")]
    audit_log_maxbackup: usize,
    /// Megabytes after which an audit log is turned over; 0 never.
    #[arg(long, value_name = "MEGABYTES", default_value_t = 100, env = "SKIFF_AUDIT_LOG_MAXSIZE")]
    audit_log_maxsize: u32,
}

impl AuditArgs {
    /// Reads the policy. Says what is wrong with it, with the field.
    pub(super) fn settings(&self) -> Result<Option<Settings>, Failure> {
        let (Some(file), Some(path)) = (&self.audit_policy_file, &self.audit_log_path) else {
            return Ok(None);
        };
        let bad = |why: String| Failure::usage(format!("--audit-policy-file {}: {why}", file.display()));
        let text = std::fs::read(file).map_err(|error| bad(error.to_string()))?;
        let policy = Policy::read(&text).map_err(bad)?;
        let log = LogSettings {
            path: path.clone(),
            max_age_days: self.audit_log_maxage,
            max_backups: self.audit_log_maxbackup,
            max_megabytes: self.audit_log_maxsize.into(),
        };
        Ok(Some(Settings { policy, log }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_policy_is_refused_with_file_and_field() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("policy.yaml");
        let args = AuditArgs {
            audit_policy_file: Some(file.clone()),
            audit_log_path: Some("-".into()),
            audit_log_maxage: 0,
            audit_log_maxbackup: 0,
            audit_log_maxsize: 0,
        };
        let said = args.settings().unwrap_err().to_string();
        assert!(said.contains("policy.yaml: No such file"), "{said}");
        std::fs::write(&file, "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{}]").unwrap();
        let said = args.settings().unwrap_err().to_string();
        assert!(said.ends_with("policy.yaml: rules[0].level: Required value"), "{said}");
        std::fs::write(&file, "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata}]")
            .unwrap();
        assert!(args.settings().unwrap().is_some());
    }
}
