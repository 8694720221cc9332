//! `skiff version`

use clap::Args;
use serde_json::json;

use super::{Global, print};
use crate::Failure;
use crate::output::{Format, OutputArgs};
use crate::resources::{Call, Session, text};

/// The version of the Kubernetes API that is spoken.
const API: &str = "v1.36";

#[derive(Args, Debug)]
pub(crate) struct Version {
    /// If true, shows client version only (no server required)
    #[arg(long)]
    client: bool,
    #[command(flatten)]
    output: OutputArgs,
}

impl Version {
    /// Prints the versions. A cluster that isn't there is no error.
    pub(crate) async fn run(self, global: &Global) -> Result<(), Failure> {
        let own = env!("CARGO_PKG_VERSION");
        let mut server = None;
        if !self.client
            && let Ok(session) = Session::open(global).await
        {
            server = session.json(Call::get("/version")).await.ok();
        }
        let format = self.output.format()?;
        if format.is_table() {
            let mut lines = format!("skiff {own} (Kubernetes API {API})\n");
            if let Some(server) = server {
                lines.push_str(&format!("Server Version: {}\n", text(&server, "gitVersion")));
            }
            return print(lines);
        }
        let mut versions = json!({"clientVersion": {"gitVersion": format!("v{own}"), "kubernetesAPI": API}});
        if let Some(server) = server {
            versions["serverVersion"] = server;
        }
        match format {
            Format::Yaml => print(crate::output::yaml::to_string(&versions)),
            Format::Json => print(crate::output::json::pretty(&versions)),
            _ => Err(Failure::usage("error: --output must be 'yaml' or 'json'")),
        }
    }
}
