//! The clients that people use, on a real cluster: kubectl 1.20 (Debian 12), kubectl 1.36 (Debian sid) and `skiff`.
//!
//! Each goes through the same [transcripts](e2e::transcript) in `tests/kubectl`, in a namespace of its own.
//! `scripts/prepare tests` fetches the kubectls. `SKIFF_KUBECTLS=/path/to/1.20:/path/to/1.36` names others; an empty path
//! leaves that one out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use e2e::cluster::{Cluster, skiff, text};
use e2e::machine;
use e2e::terminal::Terminal;
use e2e::transcript::Reader;

/// Every tag that lines of the transcripts can be kept to.
const TAGS: [&str; 5] = ["1.20", "1.36", "skiff", "kubectl", "new"];

/// Shell functions of the transcripts.
const PRELUDE: &str = r#"
# first LINES COMMAND...: the first lines of a command that goes on for ever
first() {
    local lines=$1; shift
    coproc follower { exec "$@"; }
    local pid=$follower_PID
    head -n "$lines" <&"${follower[0]}"
    kill "$pid"
}
# watching BEFORE TOTAL CHANGE COMMAND...: the first lines of a command that goes on for ever, with a change after some
watching() {
    local before=$1 total=$2 change=$3 line count=0; shift 3
    coproc follower { exec "$@"; }
    local pid=$follower_PID
    [ "$before" -gt 0 ] || eval "$change"
    while [ "$count" -lt "$total" ] && IFS= read -r line; do
        echo "$line"
        count=$((count + 1))
        [ "$count" -ne "$before" ] || eval "$change"
    done <&"${follower[0]}"
    kill "$pid"
}
# through PATH COMMAND...: what a port answers that a command forwards to
through() {
    local path=$1 line port; shift
    coproc follower { exec "$@"; }
    local pid=$follower_PID
    IFS= read -r line <&"${follower[0]}"
    port=${line#*127.0.0.1:}
    curl -sS "http://127.0.0.1:${port%% *}$path"
    kill "$pid"
}
# ask METHOD PATH [BODY|@FILE] [TYPE] [HEADER]: what the server answers to the administrator, and its code
ask() {
    set -- "$1" "$(cat api)/api/v1$2" "${3-}" "${4:-application/json}" "${5:-Accept: application/json}"
    curl -sS -A transcript --path-as-is --cacert ca.crt --cert admin.crt --key admin.key -X "$1" "$2" \
        -H "Content-Type: $4" -H "$5" ${3:+--data-binary "$3"} -w '\n%{http_code}\n'
}
"#;

/// A program that plays kubectl.
#[derive(Clone, Debug)]
struct Client {
    name: &'static str,
    tags: &'static [&'static str],
    path: PathBuf,
    /// Which one it is: for what only one can have, such as a node port.
    number: u16,
}

/// The clients under test. The two kubectls must be there, unless the environment says otherwise.
fn clients() -> Vec<Client> {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools");
    let named = std::env::var("SKIFF_KUBECTLS").ok();
    let mut named = named.as_deref().map(|paths| paths.split(':').map(PathBuf::from));
    let mut kubectl = |version: &str| match &mut named {
        Some(paths) => paths.next().unwrap_or_default(),
        None => tools.join(format!("kubectl-{version}/kubectl")),
    };
    let all: [(&str, &[&str], PathBuf); 3] = [
        ("k120", &["1.20", "kubectl"], kubectl("1.20")),
        ("k136", &["1.36", "kubectl", "new"], kubectl("1.36")),
        ("skiff", &["skiff", "new"], skiff()),
    ];
    let mut clients = Vec::new();
    for ((name, tags, path), number) in all.into_iter().zip(0..) {
        if path.as_os_str().is_empty() {
            println!("NOT TESTED: {name}, as SKIFF_KUBECTLS names no path for it");
            continue;
        }
        assert!(
            path.is_file(),
            "no {name} at {}: run `scripts/prepare tests`, or name the paths in SKIFF_KUBECTLS=1.20's:1.36's (an empty path \
             leaves one out)",
            path.display()
        );
        clients.push(Client { name, tags, path, number });
    }
    clients
}

fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.as_ref().display()))
}

fn transcripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kubectl")
}

impl Client {
    /// A directory where this client works: its command `kubectl`, its kubeconfig and the manifests.
    fn desk(&self, cluster: &Cluster) -> PathBuf {
        let desk = cluster.dir().join("clients").join(self.name);
        std::fs::create_dir_all(desk.join("bin")).unwrap();
        std::os::unix::fs::symlink(&self.path, desk.join("bin/kubectl")).unwrap();
        std::os::unix::fs::symlink(skiff(), desk.join("bin/skiff")).unwrap();
        std::fs::copy(cluster.kubeconfig(), desk.join("kubeconfig")).unwrap();
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/examples");
        // Only one service can have a node port.
        let hello = read(examples.join("hello.yaml")).replace("30080", &self.port().to_string());
        std::fs::write(desk.join("hello.yaml"), hello).unwrap();
        std::fs::copy(examples.join("budget.yaml"), desk.join("budget.yaml")).unwrap();
        std::fs::copy(transcripts().join("talkers.yaml"), desk.join("talkers.yaml")).unwrap();
        desk
    }

    fn port(&self) -> u16 {
        30080 + self.number
    }

    /// The environment in which this client works.
    fn variables(&self, desk: &Path) -> BTreeMap<String, String> {
        let path = std::env::var("PATH").unwrap_or_default();
        let variables = [
            ("NS", self.name.to_owned()),
            ("NODE", "node-1".to_owned()),
            ("PORT", self.port().to_string()),
            ("HOME", desk.display().to_string()),
            ("KUBECONFIG", desk.join("kubeconfig").display().to_string()),
            ("PATH", format!("{}:{path}", desk.join("bin").display())),
        ];
        variables.map(|(name, value)| (name.to_owned(), value)).into()
    }

    /// Works in a shell in a container, as a user at a terminal does.
    fn use_a_shell(&self, desk: &Path) {
        let started = Instant::now();
        let command = |arguments: &str| {
            let mut command = Command::new(desk.join("bin/kubectl"));
            command.args(arguments.split(' ')).envs(self.variables(desk)).current_dir(desk);
            command
        };
        let ok = |arguments: &str| {
            let output = command(arguments).output().unwrap();
            assert!(output.status.success(), "{} {arguments}: {}", self.name, text(&output.stderr));
        };
        ok("apply -n default -f talkers.yaml");
        ok("wait -n default --for=condition=Ready pod/talker --timeout=60s");
        let shell = command("exec -n default -it talker -c one -- /busybox sh");
        let mut terminal = Terminal::start(&shell, 33, 111).unwrap();
        terminal.until("~ # ");
        terminal.write("/busybox stty size\n").unwrap();
        let seen = terminal.until("33 111\r\n");
        assert!(seen.contains("/busybox stty size\r\n"), "what is typed is shown: {seen:?}");
        // The other side is told of a new size when the client hears of it: the shell asks until it is there.
        terminal.resize(22, 99).unwrap();
        terminal
            .write("until /busybox stty size | /busybox grep '22 99'; do /busybox usleep 20000; done\n")
            .unwrap();
        terminal.until("22 99\r\n");
        terminal.until("~ # ");
        // Ctrl-C goes to what runs in the container, not to the client.
        terminal.write("/busybox sh -c 'echo started; exec /busybox sleep 1000'\n").unwrap();
        terminal.until("started\r\n");
        terminal.write("\u{3}").unwrap();
        terminal.until("~ # ");
        terminal.write("exit 5\n").unwrap();
        let (seen, code) = terminal.end();
        assert_eq!(code, Some(5), "{} {seen:?}", self.name);
        assert!(seen.contains("command terminated with exit code 5"), "{} {seen:?}", self.name);
        ok("delete -n default pod talker crasher --now");
        println!("{}: shell on a terminal, {:.1} s", self.name, started.elapsed().as_secs_f32());
    }

    /// Goes through transcripts. What went otherwise than written.
    fn go_through(&self, desk: &Path, names: &[&str]) -> Vec<String> {
        let variables = self.variables(desk);
        let reader = Reader { all_tags: &TAGS, tags: self.tags, variables, prelude: PRELUDE };
        let wrong = |name: &&str| {
            let started = Instant::now();
            let text = read(transcripts().join(format!("{name}.txt")));
            let wrong = reader.run(name, &text, desk);
            println!("{}: {name}, {:.1} s", self.name, started.elapsed().as_secs_f32());
            wrong.into_iter().map(|wrong| format!("{} {wrong}", self.name)).collect::<Vec<_>>()
        };
        names.iter().flat_map(wrong).collect()
    }
}

/// Transcripts of what happens inside of a namespace.
const OWN: [&str; 12] = [
    "1-apply",
    "2-get",
    "3-describe",
    "4-logs",
    "5-exec",
    "forward",
    "6-change",
    "7-rollout",
    "8-create",
    "9-about",
    "wrong",
    "a-delete",
];

#[test]
fn every_client_reads_and_does_what_it_does_on_kubernetes() {
    machine::isolate().expect("a network namespace: these tests need root");
    let clients = clients();
    let cluster = Cluster::up(&[]);
    let only: Option<Vec<String>> =
        std::env::var("SKIFF_TRANSCRIPTS").ok().map(|names| names.split(',').map(str::to_owned).collect());
    let asked = |names: &[&'static str]| -> Vec<&'static str> {
        let asked = |name: &&str| only.as_ref().is_none_or(|only| only.iter().any(|one| one == name));
        names.iter().copied().filter(asked).collect()
    };
    let desks: Vec<(Client, PathBuf)> =
        clients.into_iter().map(|client| (client.clone(), client.desk(&cluster))).collect();
    // Threads stay in the network namespace of the one that starts them.
    let own = asked(&OWN);
    let running: Vec<_> = desks
        .iter()
        .cloned()
        .map(|(client, desk)| {
            let own = own.clone();
            std::thread::spawn(move || client.go_through(&desk, &own))
        })
        .collect();
    let mut wrong: Vec<String> = running.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    for (client, desk) in &desks {
        wrong.extend(client.go_through(desk, &asked(&["nodes"])));
    }
    assert!(wrong.is_empty(), "{} steps went otherwise:\n\n{}", wrong.len(), wrong.join("\n"));
    for (client, desk) in &desks {
        client.use_a_shell(desk);
    }
}
