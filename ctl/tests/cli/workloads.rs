//! What changes objects, and what the cluster says of itself, in kubectl's words.

use crate::common::{Cluster, cluster};
use serde_json::{Value, json};

/// A deployment as its controller would leave it, with a ReplicaSet for each of its two revisions.
async fn deployment(cluster: &Cluster) {
    let template = |tag: &str| {
        json!({"metadata": {"labels": {"app": "hello"}},
            "spec": {"containers": [{"name": "hello", "image": format!("skiff.local/hello:{tag}"), "ports": [{"containerPort": 8080}]}]}})
    };
    let selector = json!({"matchLabels": {"app": "hello"}});
    let object = json!({
        "metadata": {"name": "hello", "annotations": {"deployment.kubernetes.io/revision": "2"}, "labels": {"app": "hello"}},
        "spec": {"replicas": 2, "selector": selector, "template": template("2")},
    });
    let made = cluster.call("POST", "/apis/apps/v1/namespaces/default/deployments", Some(&object)).await;
    for revision in ["1", "2"] {
        let mut template = template(revision);
        template["metadata"]["labels"]["pod-template-hash"] = revision.into();
        let set = json!({
            "metadata": {"name": format!("hello-{revision}"), "labels": {"app": "hello"},
                "annotations": {"deployment.kubernetes.io/revision": revision},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "hello",
                    "uid": made["metadata"]["uid"], "controller": true}]},
            "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "hello", "pod-template-hash": revision}}, "template": template},
        });
        cluster.call("POST", "/apis/apps/v1/namespaces/default/replicasets", Some(&set)).await;
    }
}

async fn status(cluster: &Cluster, updated: i64, total: i64, available: i64) {
    let path = "/apis/apps/v1/namespaces/default/deployments/hello";
    let generation = cluster.call("GET", path, None).await["metadata"]["generation"].clone();
    let status = json!({"status": {"observedGeneration": generation, "replicas": total, "updatedReplicas": updated,
        "readyReplicas": available, "availableReplicas": available}});
    cluster.call("PATCH", &format!("{path}/status"), Some(&status)).await;
}

async fn image(cluster: &Cluster) -> Value {
    let object = cluster.call("GET", "/apis/apps/v1/namespaces/default/deployments/hello", None).await;
    object["spec"]["template"]["spec"]["containers"][0]["image"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn rollouts_are_followed_listed_and_undone() {
    let cluster = cluster().await;
    deployment(&cluster).await;
    status(&cluster, 2, 2, 2).await;
    cluster
        .run("rollout status deployment/hello")
        .await
        .prints("deployment \"hello\" successfully rolled out\n");
    status(&cluster, 1, 3, 2).await;
    cluster.run("rollout status deployment hello --watch=false").await.prints(
        "Waiting for deployment \"hello\" rollout to finish: 1 out of 2 new replicas have been updated...\n",
    );
    cluster.run("rollout status deployment hello --timeout=300ms").await.ends(
        1,
        "Waiting for deployment \"hello\" rollout to finish: 1 out of 2 new replicas have been updated...\n",
        "error: timed out waiting for the condition\n",
    );
    cluster
        .run("rollout history deployment/hello")
        .await
        .prints("deployment.apps/hello \nREVISION  CHANGE-CAUSE\n1         <none>\n2         <none>\n\n");
    let detail = cluster.run("rollout history deployment/hello --revision=1").await;
    assert!(
        detail.out.starts_with("deployment.apps/hello with revision #1\nPod Template:\n  Labels:"),
        "{}",
        detail.out
    );
    assert!(detail.out.contains("skiff.local/hello:1\n"), "{}", detail.out);
    cluster
        .run("rollout history deployment/hello --revision=7")
        .await
        .fails("error: unable to find specified revision 7 in history");
    cluster.run("rollout undo deployment/hello").await.prints("deployment.apps/hello rolled back\n");
    assert_eq!(image(&cluster).await, "skiff.local/hello:1");
    cluster
        .run("rollout undo deployment/hello --to-revision=1")
        .await
        .prints("deployment.apps/hello skipped rollback (current template already matches revision 1)\n");
    cluster.run("rollout pause deployment/hello").await.prints("deployment.apps/hello paused\n");
    cluster
        .run("rollout pause deployment/hello")
        .await
        .fails("error: deployments.apps \"hello\" is already paused");
    cluster.run("rollout restart deployment/hello").await.fails(
        "error: deployments.apps \"hello\" can't restart paused deployment (run rollout resume first)",
    );
    cluster.run("rollout resume deployment/hello").await.prints("deployment.apps/hello resumed\n");
    cluster.run("rollout restart deployment/hello").await.prints("deployment.apps/hello restarted\n");
    let object = cluster.call("GET", "/apis/apps/v1/namespaces/default/deployments/hello", None).await;
    assert!(
        object["spec"]["template"]["metadata"]["annotations"]["kubectl.kubernetes.io/restartedAt"]
            .is_string()
    );
    cluster.run("scale deployment/hello --replicas=5").await.prints("deployment.apps/hello scaled\n");
    cluster
        .run("scale deploy hello --replicas=3 --current-replicas=4")
        .await
        .fails("error: Expected replicas to be 4, was 5");
    cluster
        .run("expose deployment hello --port=80 --target-port=8080")
        .await
        .prints("service/hello exposed\n");
    let described = cluster.run("describe deployment hello").await;
    for part in [
        "Name:                   hello\nNamespace:              default\nCreationTimestamp:",
        "Replicas:               5 desired | 1 updated | 3 total | 2 available | 0 unavailable\n",
        "StrategyType:           RollingUpdate\n",
        "hello-2 (0/0 replicas created)\nEvents:",
    ] {
        assert!(described.out.contains(part), "{part}\n{}", described.out);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_annotations_and_patches_change_objects() {
    let cluster = cluster().await;
    cluster.pod("web-0", json!({"app": "web"})).await;
    cluster.run("label pod web-0 a=b").await.prints("pod/web-0 labeled\n");
    cluster.run("label pod web-0 a=b").await.prints("pod/web-0 not labeled\n");
    cluster
        .run("label pod web-0 a=c")
        .await
        .fails("error: 'a' already has a value (b), and --overwrite is false");
    cluster.run("label pod web-0 a=c --overwrite").await.prints("pod/web-0 labeled\n");
    cluster.run("label pods -l app=web a-").await.prints("pod/web-0 unlabeled\n");
    cluster.run("label pod web-0").await.fails("error: at least one label update is required");
    cluster.run("label pod a=b").await.fails("error: resource(s) were provided, but no name was specified");
    cluster.run("annotate pod/web-0 x=y").await.prints("pod/web-0 annotated\n");
    let patch = "{\"metadata\":{\"labels\":{\"p\":\"1\"}}}";
    cluster.run(&format!("patch pod web-0 -p {patch}")).await.prints("pod/web-0 patched\n");
    cluster
        .run(&format!("patch pod web-0 --type=merge -p {patch}"))
        .await
        .prints("pod/web-0 patched (no change)\n");
    cluster
        .run("get pods -L p,x --no-headers -o custom-columns=:.metadata.labels")
        .await
        .prints("map[app:web p:1]\n");
    cluster.run("wait pod/web-0 --for=condition=Ready").await.prints("pod/web-0 condition met\n");
    cluster
        .run("wait pod web-0 --for=jsonpath={.status.phase}=Running")
        .await
        .prints("pod/web-0 condition met\n");
    cluster
        .run("wait pod web-0 --for=condition=Nothing --timeout=200ms")
        .await
        .fails("error: timed out waiting for the condition on pods/web-0");
    cluster
        .run("wait pod x --for=condition=Ready")
        .await
        .fails("Error from server (NotFound): pods \"x\" not found");
    let waiting = cluster.start("wait pod/late --for=create");
    cluster.pod("late", json!({})).await;
    assert!(waiting.wait_with_output().await.unwrap().status.success());
    let described = cluster.run("describe pod web-0").await;
    assert!(
        described.out.starts_with("Name:             web-0\nNamespace:        default\n"),
        "{}",
        described.out
    );
    assert!(
        described.out.ends_with("Events:          <none>\n") || described.out.contains("\nEvents:"),
        "{}",
        described.out
    );
    cluster
        .run("run one --image=skiff.local/hello:1 --dry-run=client")
        .await
        .prints("pod/one created (dry run)\n");
    cluster.run("run one --image=skiff.local/hello:1 --port=80").await.prints("pod/one created\n");
    cluster.run("expose pod one --name=uno").await.prints("service/uno exposed\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_are_cordoned_and_drained() {
    let cluster = cluster().await;
    cluster.call("POST", "/api/v1/nodes", Some(&json!({"metadata": {"name": "n1"}}))).await;
    cluster.run("cordon n1").await.prints("node/n1 cordoned\n");
    cluster.run("cordon node/n1").await.prints("node/n1 already cordoned\n");
    cluster.run("uncordon n1").await.prints("node/n1 uncordoned\n");
    cluster.pod("bare", json!({"app": "web"})).await;
    let refused = cluster.run("drain n1").await;
    assert_eq!((refused.code, refused.out.as_str()), (1, "node/n1 cordoned\n"));
    let line = "error: unable to drain node \"n1\" due to error: cannot delete Pods that declare no controller (use --force to override): default/bare, continuing command...\n";
    assert!(refused.err.starts_with(line), "{}", refused.err);
    // What a node agent does once the pod's time is over.
    let draining = cluster.start("drain n1 --force");
    let gone = json!({"gracePeriodSeconds": 0});
    loop {
        let pod = cluster.call("GET", "/api/v1/namespaces/default/pods/bare", None).await;
        if pod["metadata"]["deletionTimestamp"].is_string() {
            break;
        }
        tokio::task::yield_now().await;
    }
    cluster.call("DELETE", "/api/v1/namespaces/default/pods/bare", Some(&gone)).await;
    let drained = draining.wait_with_output().await.unwrap();
    assert_eq!(
        String::from_utf8(drained.stdout).unwrap(),
        "node/n1 already cordoned\npod/bare evicted\nnode/n1 drained\n"
    );
    assert_eq!(
        String::from_utf8(drained.stderr).unwrap(),
        "Warning: deleting Pods that declare no controller: default/bare\nevicting pod default/bare\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cluster_says_what_it_offers() {
    let cluster = cluster().await;
    let resources = cluster.run("api-resources --api-group=apps").await;
    assert!(resources.out.starts_with("NAME "), "{}", resources.out);
    let line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        resources.out.lines().any(|l| line(l) == "deployments deploy apps/v1 true Deployment"),
        "{}",
        resources.out
    );
    let versions = cluster.run("api-versions").await;
    assert!(versions.out.contains("apps/v1\n") && versions.out.ends_with("v1\n"), "{}", versions.out);
    assert!(
        cluster
            .run("cluster-info")
            .await
            .out
            .starts_with("Kubernetes control plane is running at https://127.0.0.1:")
    );
    cluster.run("events").await.says("No events found in default namespace.\n");
    cluster.run("top pods").await.fails("error: Metrics API not available");
    cluster.run("config current-context").await.prints("test\n");
    cluster
        .run("config get-contexts")
        .await
        .prints("CURRENT   NAME   CLUSTER   AUTHINFO   NAMESPACE\n*         test   test      test       \n");
    cluster.run("config use-context other").await.fails("error: no context exists with the name: \"other\"");
    cluster.run("config set-context --current -n kube-system").await.prints("Context \"test\" modified.\n");
    cluster.run("get pods").await.says("No resources found in kube-system namespace.\n");
    assert!(!cluster.run("config view").await.out.contains("LS0t"), "secrets are not shown");
    for shell in ["bash", "zsh", "fish"] {
        assert!(cluster.run(&format!("completion {shell}")).await.out.contains("skiff"), "{shell}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_made_from_flags_and_edited() {
    let cluster = cluster().await;
    cluster.run("create namespace other").await.prints("namespace/other created\n");
    cluster
        .run("create namespace other")
        .await
        .fails("Error from server (AlreadyExists): namespaces \"other\" already exists");
    cluster
        .run("create deployment hello --image=skiff.local/hello:1")
        .await
        .prints("deployment.apps/hello created\n");
    cluster.run("create configmap a --from-literal=k=v -n other").await.prints("configmap/a created\n");
    cluster.run("get cm a -n other -o jsonpath={.data.k}").await.prints("v");
    let dry = cluster.run("create configmap b --from-literal=k=yes --dry-run=client -o yaml").await;
    dry.prints("apiVersion: v1\ndata:\n  k: \"yes\"\nkind: ConfigMap\nmetadata:\n  name: b\n");
    cluster.run("create secret generic s --from-literal=k=value").await.prints("secret/s created\n");
    assert!(
        cluster.run("describe secret s").await.out.ends_with("\nType:  Opaque\n\nData\n====\nk:  5 bytes\n")
    );
    assert_eq!(cluster.run("create token default").await.out.trim().split('.').count(), 3, "a token");
    let edited = cluster.editor("sed -i s/hello:1/hello:2/", "edit deployment hello").await;
    edited.prints("deployment.apps/hello edited\n");
    assert_eq!(image(&cluster).await, "skiff.local/hello:2");
    let cancelled = cluster.editor("true", "edit deployment/hello").await;
    let told = (cancelled.code, cancelled.out.as_str(), cancelled.err.as_str());
    assert_eq!(told, (0, "", "Edit cancelled, no changes made.\n"));
}
