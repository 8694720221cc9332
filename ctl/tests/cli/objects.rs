//! get, apply, create and delete, in kubectl's words.

use crate::common::cluster;
use serde_json::json;

const DEPLOYMENT: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: hello
spec:
  replicas: 2
  selector: {matchLabels: {app: hello}}
  template:
    metadata: {labels: {app: hello}}
    spec:
      containers:
      - name: hello
        image: skiff.local/hello:1
---
apiVersion: v1
kind: Service
metadata:
  name: hello
spec:
  selector: {app: hello}
  ports: [{port: 80, targetPort: 8080}]
";

#[tokio::test(flavor = "multi_thread")]
async fn apply_creates_then_leaves_then_changes() {
    let cluster = cluster().await;
    let file = cluster.file("hello.yaml", DEPLOYMENT);
    let apply = format!("apply -f {file}");
    cluster
        .run(&format!("{apply} --dry-run=server"))
        .await
        .prints("deployment.apps/hello created (server dry run)\nservice/hello created (server dry run)\n");
    cluster
        .run(&format!("{apply} --dry-run=client"))
        .await
        .prints("deployment.apps/hello created (dry run)\nservice/hello created (dry run)\n");
    cluster.run(&apply).await.prints("deployment.apps/hello created\nservice/hello created\n");
    cluster.run(&apply).await.prints("deployment.apps/hello unchanged\nservice/hello unchanged\n");
    cluster.file("hello.yaml", &DEPLOYMENT.replace("hello:1", "hello:2").replace("  replicas: 2\n", ""));
    cluster.run(&apply).await.prints("deployment.apps/hello configured\nservice/hello unchanged\n");
    let deployment = cluster.run("get deploy hello -o json").await.json();
    assert_eq!(deployment["spec"]["template"]["spec"]["containers"][0]["image"], "skiff.local/hello:2");
    assert_eq!(deployment["spec"]["replicas"], 1, "what is no longer in the file is back at its default");
    cluster
        .feed("apply -f -", DEPLOYMENT)
        .await
        .prints("deployment.apps/hello configured\nservice/hello unchanged\n");
    cluster.run(&format!("delete -f {file}")).await.prints(
        "deployment.apps \"hello\" deleted from default namespace\nservice \"hello\" deleted from default namespace\n",
    );
    cluster
        .run("get deployment,service -l app=hello")
        .await
        .says("No resources found in default namespace.\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn apply_on_the_server_merges_asks_and_takes_over() {
    let cluster = cluster().await;
    let map = |data: &str| format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: m}}\ndata: {data}\n");
    let file = cluster.file("map.yaml", &map("{a: x, b: x}"));
    cluster.run(&format!("apply -f {file}")).await.prints("configmap/m created\n");
    // What this client applied by itself is its own, and goes when it is not applied any more.
    cluster.file("map.yaml", &map("{a: x, b: w}"));
    cluster.run(&format!("apply --server-side -f {file}")).await.prints("configmap/m serverside-applied\n");
    cluster.file("map.yaml", &map("{b: w}"));
    cluster.run(&format!("apply --server-side -f {file}")).await.prints("configmap/m serverside-applied\n");
    let object = cluster.run("get configmap m -o json").await.json();
    assert_eq!((&object["data"], &object["metadata"]["managedFields"]), (&json!({"b": "w"}), &json!(null)));
    let shown = cluster.run("get configmap m -o json --show-managed-fields").await.json();
    let managers: Vec<_> = shown["metadata"]["managedFields"].as_array().into_iter().flatten().collect();
    let managers: Vec<_> = managers.iter().map(|entry| (&entry["manager"], &entry["operation"])).collect();
    assert_eq!(
        managers,
        [(&json!("kubectl-last-applied"), &json!("Apply")), (&json!("kubectl"), &json!("Apply"))]
    );
    // Back on the client, nothing is missing: only the annotation is written in another way.
    cluster.run(&format!("apply -f {file}")).await.prints("configmap/m configured\n");
    let other = format!("apply --server-side -f {file} --field-manager other");
    cluster.file("map.yaml", &map("{b: z}"));
    let refused = cluster.run(&other).await;
    assert_eq!(refused.code, 1);
    let start = "error: Apply failed with 1 conflict: conflict with \"kubectl\": .data.b\nPlease review the fields above";
    assert!(refused.err.starts_with(start), "{}", refused.err);
    cluster.run(&format!("{other} --force-conflicts")).await.prints("configmap/m serverside-applied\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn apply_says_what_is_wrong() {
    let cluster = cluster().await;
    let dir = cluster.dir.path().display().to_string();
    cluster.run("apply -f nothing.yaml").await.fails("error: the path \"nothing.yaml\" does not exist");
    cluster.run("apply").await.fails("error: must specify one of -f and -k");
    let bad = cluster.file("bad.yaml", "apiVersion: v1\nkind: ConfigMap\n  name: x\n");
    let ran = cluster.run(&format!("apply -f {bad}")).await;
    assert_eq!((ran.code, ran.out.as_str()), (1, ""));
    let start =
        format!("error: error parsing {dir}/bad.yaml:3:7: error converting YAML to JSON: yaml: line 3: ");
    assert!(ran.err.starts_with(&start), "{}", ran.err);
    let unknown =
        cluster.file("unknown.yaml", "apiVersion: example.com/v1\nkind: Foo\nmetadata: {name: x}\n");
    cluster.run(&format!("apply -f {unknown}")).await.fails(&format!(
        "error: resource mapping not found for name: \"x\" namespace: \"\" from \"{unknown}\": no matches for kind \
         \"Foo\" in version \"example.com/v1\"\nensure CRDs are installed first"
    ));
    let extra =
        cluster.file("extra.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\nspce: {}\n");
    let ran = cluster.run(&format!("apply -f {extra}")).await;
    assert!(ran.err.starts_with("Error from server (BadRequest): error when creating"), "{}", ran.err);
    assert!(ran.err.contains("strict decoding error: unknown field \"spce\""), "{}", ran.err);
    cluster.run(&format!("apply -f {extra} --validate=false")).await.prints("configmap/x created\n");
    let invalid = DEPLOYMENT.replace("app: hello}}\n    spec", "app: other}}\n    spec");
    let invalid = cluster.file("invalid.yaml", &invalid);
    let ran = cluster.run(&format!("apply -f {invalid}")).await;
    assert_eq!((ran.code, ran.out.as_str()), (1, "service/hello created\n"), "the rest is applied");
    assert!(ran.err.starts_with("The Deployment \"hello\" is invalid: "), "{}", ran.err);
    let elsewhere =
        cluster.file("ns.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x, namespace: a}\n");
    cluster.run(&format!("apply -n b -f {elsewhere}")).await.fails(
        "error: the namespace from the provided object \"a\" does not match the namespace \"b\". You must pass \
         '--namespace=a' to perform this operation.",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn get_shows_tables_and_objects() {
    let cluster = cluster().await;
    cluster.run("get pods").await.says("No resources found in default namespace.\n");
    cluster.run("get pods -A").await.says("No resources found\n");
    cluster.pod("web-0", json!({"app": "web"})).await;
    cluster.pod("web-1", json!({"app": "web", "n": "1"})).await;
    let age = |text: &str| {
        let lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
        lines.collect::<Vec<_>>()
    };
    let ran = cluster.run("get po").await;
    assert_eq!(age(&ran.out)[0], "NAME READY STATUS RESTARTS AGE");
    assert!(age(&ran.out)[1].starts_with("web-0 1/1 Running 2"), "{}", ran.out);
    let ran = cluster.run("get pods -A --show-labels -l n").await;
    assert_eq!(age(&ran.out)[0], "NAMESPACE NAME READY STATUS RESTARTS AGE LABELS");
    assert!(ran.out.ends_with("app=web,n=1\n") && ran.out.lines().count() == 2, "{}", ran.out);
    let ran = cluster.run("get pod/web-1 svc/kubernetes --no-headers").await;
    let names: Vec<&str> = ran.out.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(names, ["pod/web-1", "service/kubernetes"], "{}", ran.out);
    cluster.run("get pods -o name").await.prints("pod/web-0\npod/web-1\n");
    cluster.run("get pods -o jsonpath={.items[*].metadata.name}").await.prints("web-0 web-1");
    cluster.run("get pod web-1 -o jsonpath={.metadata.labels.n}").await.prints("1");
    cluster
        .run("get pods -o custom-columns=N:.metadata.name,L:.metadata.labels.n --sort-by=.metadata.name")
        .await
        .prints("N       L\nweb-0   <none>\nweb-1   1\n");
    assert_eq!(cluster.run("get pods -o json").await.json()["kind"], "List");
    assert_eq!(cluster.run("get pod web-0 -o json").await.json()["kind"], "Pod");
    assert!(
        cluster.run("get pod web-0 -o yaml").await.out.starts_with("apiVersion: v1\nkind: Pod\nmetadata:\n")
    );
    cluster.run("get pod x").await.fails("Error from server (NotFound): pods \"x\" not found");
    cluster.run("get pod x --ignore-not-found").await.prints("");
    let ran = cluster.run("get pod web-0 x").await;
    assert_eq!((ran.code, ran.err.as_str()), (1, "Error from server (NotFound): pods \"x\" not found\n"));
    assert!(ran.out.contains("web-0"));
    cluster.run("get foo").await.fails("error: the server doesn't have a resource type \"foo\"");
    cluster.run("get pods -o foo").await.fails(
        "error: unable to match a printer suitable for the output format \"foo\", allowed formats are: \
         custom-columns,custom-columns-file,json,jsonpath,jsonpath-file,name,wide,yaml",
    );
    cluster.run("get all -o name").await.prints("pod/web-0\npod/web-1\nservice/kubernetes\n");
    let wrong = cluster.run("get pods --nonsense").await;
    assert_eq!((wrong.code, wrong.err.lines().count()), (2, 1), "{}", wrong.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn create_and_delete_say_what_they_did() {
    let cluster = cluster().await;
    let file =
        cluster.file("d/cm.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {k: v}\n");
    let dir = cluster.dir.path().join("d").display().to_string();
    cluster.run(&format!("create -f {dir}")).await.prints("configmap/a created\n");
    cluster.run(&format!("create -f {dir}")).await.fails(&format!(
        "Error from server (AlreadyExists): error when creating \"{file}\": configmaps \"a\" already exists"
    ));
    cluster
        .run("delete configmap")
        .await
        .fails("error: resource(s) were provided, but no name was specified");
    cluster
        .run("delete")
        .await
        .starts("error: You must provide one or more resources by argument or filename.\nExample");
    cluster.run("delete cm a b").await.ends(
        1,
        "configmap \"a\" deleted from default namespace\n",
        "Error from server (NotFound): configmaps \"b\" not found\n",
    );
    cluster.run("delete cm b --ignore-not-found").await.prints("");
    cluster
        .feed("create -f - -n other", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n")
        .await
        .fails("Error from server (NotFound): error when creating \"STDIN\": namespaces \"other\" not found");
    cluster
        .feed(
            "create -f - -o name",
            "{\"apiVersion\":\"v1\",\"kind\":\"Namespace\",\"metadata\":{\"name\":\"other\"}}",
        )
        .await
        .prints("namespace/other\n");
    cluster.run("delete cm --all -n other").await.says("No resources found\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_cluster_there_is_a_version_and_advice() {
    let cluster = cluster().await;
    let ran = cluster.run("version --client").await;
    ran.prints("skiff 0.1.0 (Kubernetes API v1.36)\n");
    let ran = cluster.run("version --kubeconfig missing").await;
    ran.prints("skiff 0.1.0 (Kubernetes API v1.36)\n");
    let ran = cluster.run("get pods --server https://127.0.0.1:1").await;
    ran.fails(
        "The connection to the server 127.0.0.1:1 was refused: is the cluster running? start it with `skiff up`",
    );
    let ran = cluster.run("get pods --kubeconfig missing").await;
    assert!(ran.code == 1 && ran.err.starts_with("error: kubeconfig missing: "), "{}", ran.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn get_follows_changes() {
    use tokio::io::{AsyncBufReadExt, BufReader};
    let cluster = cluster().await;
    cluster.pod("web-0", json!({})).await;
    let mut watching = cluster.start("get pods -w -o name");
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("pod/web-0"));
    cluster.pod("web-1", json!({})).await;
    assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("pod/web-1"));
    watching.kill().await.unwrap();
}
