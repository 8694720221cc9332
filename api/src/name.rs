//! What names, labels, keys and ports may look like, with upstream's messages.
//!
//! Every check gives the list of what is wrong, empty if nothing is.

/// What is wrong with a value; empty if nothing is.
pub type Problems = Vec<String>;

/// The rule for the name of an object; `prefix` says that characters will be appended (`generateName`).
pub type NameRule = fn(name: &str, prefix: bool) -> Problems;

const LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const SUBDOMAIN: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const WILDCARD: &str = "\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const KEY: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const VALUE: &str = "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?";
const KEY_MESSAGE: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";

/// "must be no more than N characters"
pub fn max_len(max: usize) -> String {
    format!("must be no more than {max} characters")
}

fn max_bytes(max: usize) -> String {
    format!("must be no more than {max} bytes")
}

/// The message of a value that doesn't match a regular expression.
pub fn regex_message(message: &str, regex: &str, examples: &[&str]) -> String {
    if examples.is_empty() {
        return format!("{message} (regex used for validation is '{regex}')");
    }
    let examples: Vec<String> = examples.iter().map(|e| format!("'{e}', ")).collect();
    format!("{message} (e.g. {}regex used for validation is '{regex}')", examples.join(" or "))
}

/// "must be between LO and HI, inclusive"
pub fn inclusive_range(lo: i64, hi: i64) -> String {
    format!("must be between {lo} and {hi}, inclusive")
}

fn lower(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

fn matches_label(s: &str) -> bool {
    let b = s.as_bytes();
    matches!((b.first(), b.last()), (Some(&f), Some(&l)) if lower(f) && lower(l))
        && b.iter().all(|&c| lower(c) || c == b'-')
}

fn matches_subdomain(s: &str) -> bool {
    s.split('.').all(matches_label)
}

fn matches_key(s: &str) -> bool {
    let b = s.as_bytes();
    matches!((b.first(), b.last()), (Some(f), Some(l)) if f.is_ascii_alphanumeric() && l.is_ascii_alphanumeric())
        && b.iter().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'))
}

/// A DNS label as RFC 1123 has it, in lower case: `my-name`.
pub fn dns1123_label(value: &str) -> Problems {
    let mut problems = Vec::new();
    if value.len() > 63 {
        problems.push(max_len(63));
    }
    if !matches_label(value) {
        problems.push(if matches_subdomain(value) {
            "must not contain dots".to_owned()
        } else {
            regex_message(
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start \
                 and end with an alphanumeric character",
                LABEL,
                &["my-name", "123-abc"],
            )
        });
    }
    problems
}

/// A DNS subdomain as RFC 1123 has it, in lower case: `example.com`.
pub fn dns1123_subdomain(value: &str) -> Problems {
    let mut problems = Vec::new();
    if value.len() > 253 {
        problems.push(max_len(253));
    }
    if !matches_subdomain(value) {
        problems.push(regex_message(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must \
             start and end with an alphanumeric character",
            SUBDOMAIN,
            &["example.com"],
        ));
    }
    problems
}

/// A subdomain whose labels may hold underscores, as DNS search paths may.
pub fn dns1123_subdomain_with_underscore(value: &str) -> Problems {
    let mut problems = Vec::new();
    if value.len() > 253 {
        problems.push(max_len(253));
    }
    let label = |s: &str| {
        let s = s.strip_prefix('_').unwrap_or(s).as_bytes();
        matches!((s.first(), s.last()), (Some(&f), Some(&l)) if lower(f) && lower(l))
            && s.iter().all(|&c| lower(c) || c == b'-' || c == b'_')
    };
    if !value.split('.').all(label) {
        problems.push(regex_message(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and \
             must start and end with an alphanumeric character",
            "_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*",
            &["example.com"],
        ));
    }
    problems
}

/// A DNS label as RFC 1035 has it (starts with a letter): `abc-123`.
pub fn dns1035_label(value: &str) -> Problems {
    let mut problems = Vec::new();
    if value.len() > 63 {
        problems.push(max_len(63));
    }
    if !(matches_label(value) && value.as_bytes().first().is_some_and(u8::is_ascii_lowercase)) {
        problems.push(regex_message(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic \
             character, and end with an alphanumeric character",
            "[a-z]([-a-z0-9]*[a-z0-9])?",
            &["my-name", "abc-123"],
        ));
    }
    problems
}

/// A subdomain behind `*.`.
pub fn wildcard_dns1123_subdomain(value: &str) -> Problems {
    let mut problems = Vec::new();
    if value.len() > 253 {
        problems.push(max_len(253));
    }
    if !value.strip_prefix("*.").is_some_and(matches_subdomain) {
        problems.push(regex_message(
            "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist \
             of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character",
            WILDCARD,
            &["*.example.com"],
        ));
    }
    problems
}

/// A key of a label, annotation, taint, finalizer …: `name` or `example.com/name`.
pub fn qualified_name(value: &str) -> Problems {
    let message = || regex_message(KEY_MESSAGE, KEY, &["MyName", "my.name", "123-abc"]);
    let mut problems = Vec::new();
    let mut parts = value.split('/');
    let name = match (parts.next(), parts.next(), parts.next()) {
        (Some(name), None, _) => name,
        (Some(prefix), Some(name), None) => {
            if prefix.is_empty() {
                problems.push("prefix part must be non-empty".to_owned());
            } else {
                // The limit of the prefix is counted in bytes in upstream's words, too.
                problems.extend(
                    dns1123_subdomain(prefix).into_iter().map(|p| {
                        format!("prefix part {}", if p == max_len(253) { max_bytes(253) } else { p })
                    }),
                );
            }
            name
        }
        _ => {
            return vec![format!(
                "a valid label key {} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
                message()
            )];
        }
    };
    if name.is_empty() {
        problems.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        problems.push(format!("name part {}", max_bytes(63)));
    }
    if !matches_key(name) {
        problems.push(format!("name part {}", message()));
    }
    problems
}

/// The value of a label.
pub fn label_value(value: &str) -> Problems {
    let mut problems = Vec::new();
    if value.len() > 63 {
        problems.push(max_bytes(63));
    }
    if !value.is_empty() && !matches_key(value) {
        problems.push(regex_message(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must \
             start and end with an alphanumeric character",
            VALUE,
            &["MyValue", "my_value", "12345"],
        ));
    }
    problems
}

/// An identifier as in C.
pub fn c_identifier(value: &str) -> Problems {
    let b = value.as_bytes();
    let ok = b.first().is_some_and(|c| c.is_ascii_alphabetic() || *c == b'_')
        && b.iter().all(|c| c.is_ascii_alphanumeric() || *c == b'_');
    if ok {
        return Vec::new();
    }
    vec![regex_message(
        "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric \
         characters or '_'",
        "[A-Za-z_][A-Za-z0-9_]*",
        &["my_name", "MY_NAME", "MyName"],
    )]
}

fn escapes_directory(value: &str) -> Option<String> {
    match value {
        "." => Some("must not be '.'".to_owned()),
        ".." => Some("must not be '..'".to_owned()),
        v if v.starts_with("..") => Some("must not start with '..'".to_owned()),
        _ => None,
    }
}

/// The name of an environment variable, as it was before Kubernetes 1.30.
pub fn env_var_name(value: &str) -> Problems {
    let b = value.as_bytes();
    let special = |c: u8| matches!(c, b'-' | b'.' | b'_');
    let ok = b.first().is_some_and(|&c| c.is_ascii_alphabetic() || special(c))
        && b.iter().all(|&c| c.is_ascii_alphanumeric() || special(c));
    let mut problems = Vec::new();
    if !ok {
        problems.push(regex_message(
            "a valid environment variable name must consist of alphabetic characters, digits, '_', '-', or '.', and \
             must not start with a digit",
            "[-._a-zA-Z][-._a-zA-Z0-9]*",
            &["my.env-name", "MY_ENV.NAME", "MyEnvName1"],
        ));
    }
    problems.extend(escapes_directory(value));
    problems
}

/// The name of an environment variable: printable ASCII without `=`.
pub fn relaxed_env_var_name(value: &str) -> Problems {
    let mut problems = Vec::new();
    if value.is_empty() {
        problems.push("environment variable name must be non-empty".to_owned());
    }
    if value.bytes().any(|b| !(0x20..0x7f).contains(&b) || b == b'=') {
        problems.push(
            "a valid environment variable name must consist only of printable ASCII characters other than '='"
                .to_owned(),
        );
    }
    problems
}

/// A key of a ConfigMap or Secret.
pub fn config_map_key(value: &str) -> Problems {
    let mut problems = Vec::new();
    if value.len() > 253 {
        problems.push(max_len(253));
    }
    let ok = !value.is_empty()
        && value.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b'_'));
    if !ok {
        problems.push(regex_message(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            "[-._a-zA-Z0-9]+",
            &["key.name", "KEY_NAME", "key-name"],
        ));
    }
    problems.extend(escapes_directory(value));
    problems
}

/// The name of a port.
pub fn port_name(value: &str) -> Problems {
    let mut problems = Vec::new();
    if value.len() > 15 {
        problems.push(max_len(15));
    }
    if value.is_empty() || !value.bytes().all(|c| lower(c) || c == b'-') {
        problems.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !value.bytes().any(|c| c.is_ascii_lowercase()) {
        problems.push("must contain at least one letter (a-z)".to_owned());
    }
    if value.contains("--") {
        problems.push("must not contain consecutive hyphens".to_owned());
    }
    if value.starts_with('-') || value.ends_with('-') {
        problems.push("must not begin or end with a hyphen".to_owned());
    }
    problems
}

/// The number of a port.
pub fn port_number(value: i64) -> Problems {
    in_range(value, 1, 65535)
}

/// A number between two limits, both allowed.
pub fn in_range(value: i64, lo: i64, hi: i64) -> Problems {
    if (lo..=hi).contains(&value) { Vec::new() } else { vec![inclusive_range(lo, hi)] }
}

/// A user or group id.
pub fn user_id(value: i64) -> Problems {
    in_range(value, 0, i64::from(i32::MAX))
}

/// A percentage such as `25%`.
pub fn percent(value: &str) -> Problems {
    let ok = value.strip_suffix('%').is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    if ok {
        return Vec::new();
    }
    vec![regex_message(
        "a valid percent string must be a numeric string followed by an ending '%'",
        "[0-9]+%",
        &["1%", "93%"],
    )]
}

/// The name of an HTTP header.
pub fn http_header_name(value: &str) -> Problems {
    if !value.is_empty() && value.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-') {
        return Vec::new();
    }
    vec![regex_message(
        "a valid HTTP header must consist of alphanumeric characters or '-'",
        "[-A-Za-z0-9]+",
        &["X-Header-Name"],
    )]
}

/// A name that can be one segment of a URL path, which is all that RBAC asks of its names.
pub fn path_segment(value: &str) -> Problems {
    for not in [".", ".."] {
        if value == not {
            return vec![format!("may not be '{not}'")];
        }
    }
    path_segment_prefix(value)
}

/// A beginning of a name that can be one segment of a URL path.
pub fn path_segment_prefix(value: &str) -> Problems {
    ["/", "%"].iter().filter(|c| value.contains(**c)).map(|c| format!("may not contain '{c}'")).collect()
}

/// A trailing dash is fine where characters will follow.
fn masked(name: &str, prefix: bool) -> std::borrow::Cow<'_, str> {
    match name.strip_suffix('-') {
        // As upstream: the dash and the character before it make room for one letter.
        Some(rest) if prefix && !rest.is_empty() => {
            let mut cut = rest.len() - 1;
            while !rest.is_char_boundary(cut) {
                cut -= 1;
            }
            format!("{}a", &rest[..cut]).into()
        }
        _ => name.into(),
    }
}

/// [`NameRule`]: a DNS subdomain, the rule of most kinds.
pub fn subdomain_name(name: &str, prefix: bool) -> Problems {
    dns1123_subdomain(&masked(name, prefix))
}

/// [`NameRule`]: a DNS label, as namespaces.
pub fn label_name(name: &str, prefix: bool) -> Problems {
    dns1123_label(&masked(name, prefix))
}

/// [`NameRule`]: a DNS label that starts with a letter, as services.
pub fn label1035_name(name: &str, prefix: bool) -> Problems {
    dns1035_label(&masked(name, prefix))
}

/// [`NameRule`]: a segment of a URL path, as the kinds of RBAC.
pub fn path_segment_name(name: &str, prefix: bool) -> Problems {
    if prefix { path_segment_prefix(name) } else { path_segment(name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rule: fn(&str) -> Problems, good: &[&str], bad: &[(&str, &[&str])]) {
        for value in good {
            assert_eq!(rule(value), Problems::new(), "{value:?} is good");
        }
        for (value, problems) in bad {
            assert_eq!(&rule(value), problems, "{value:?}");
        }
    }

    #[test]
    fn labels_are_lower_case_and_without_dots() {
        let message = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must \
                       start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for \
                       validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
        check(
            dns1123_label,
            &["a", "1", "a-b", &"a".repeat(63)],
            &[
                ("", &[message]),
                ("A", &[message]),
                ("a-", &[message]),
                ("a.b", &["must not contain dots"]),
                (&"a".repeat(64), &["must be no more than 63 characters"]),
            ],
        );
    }

    #[test]
    fn subdomains_are_labels_between_dots() {
        let message = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', \
                       and must start and end with an alphanumeric character (e.g. 'example.com', regex used for \
                       validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
        check(
            dns1123_subdomain,
            &["a", "a.b", "1.2-3"],
            &[("", &[message]), ("a..b", &[message]), ("a_b", &[message]), (".a", &[message])],
        );
    }

    #[test]
    fn keys_have_an_optional_prefix() {
        let message = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with \
                       an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for \
                       validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
        check(
            qualified_name,
            &["a", "A.b_c-d", "example.com/x"],
            &[
                ("", &["name part must be non-empty", message]),
                ("-a", &[message]),
                ("/a", &["prefix part must be non-empty"]),
                (&"a".repeat(64), &["name part must be no more than 63 bytes"]),
            ],
        );
        assert_eq!(qualified_name("a/b/c").len(), 1);
    }

    #[test]
    fn generated_names_may_end_in_a_dash() {
        assert!(subdomain_name("web-", true).is_empty());
        assert!(!subdomain_name("web-", false).is_empty());
        assert!(!subdomain_name("-", true).is_empty());
    }

    #[test]
    fn the_smaller_rules_hold() {
        check(label_value, &["", "a", "A_b.c"], &[]);
        assert_eq!(label_value("-").len(), 1);
        check(port_name, &["http", "a1"], &[("a--b", &["must not contain consecutive hyphens"])]);
        check(percent, &["1%", "100%"], &[]);
        assert_eq!(percent("x%").len(), 1);
        assert_eq!(port_number(0), ["must be between 1 and 65535, inclusive"]);
        check(
            path_segment,
            &["system:node"],
            &[("..", &["may not be '..'"]), ("a/b", &["may not contain '/'"])],
        );
        check(config_map_key, &["a.b"], &[("..a", &["must not start with '..'"])]);
        assert_eq!(relaxed_env_var_name("a=b").len(), 1);
    }
}
