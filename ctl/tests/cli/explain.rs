//! `skiff explain`: the texts of upstream, laid out as kubectl 1.36 lays them out.

use crate::common::cluster;

#[tokio::test(flavor = "multi_thread")]
async fn a_field_is_explained_with_its_type_and_fields() {
    let cluster = cluster().await;
    let strategy = cluster.run("explain deployment.spec.strategy").await.out;
    let expected = "\
GROUP:      apps
KIND:       Deployment
VERSION:    v1

FIELD: strategy <DeploymentStrategy>


DESCRIPTION:
    The deployment strategy to use to replace existing pods with new ones.
    DeploymentStrategy describes how to replace existing pods with new ones.
    \nFIELDS:
  rollingUpdate\t<RollingUpdateDeployment>
    Rolling update config params. Present only if DeploymentStrategyType =
    RollingUpdate.

  type\t<string>
  enum: Recreate, RollingUpdate
    Type of deployment. Can be \"Recreate\" or \"RollingUpdate\". Default is
    RollingUpdate.
    \n    Possible enum values:
     - `\"Recreate\"`
     - `\"RollingUpdate\"`


";
    assert_eq!(strategy, expected);
    // A group may be named, as the resource's name goes on.
    assert_eq!(cluster.run("explain deployments.apps.spec.strategy").await.out, expected);
    let version = cluster.run("explain deployments.spec.strategy --api-version=apps/v1").await;
    assert_eq!(version.out, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_fields_are_listed_recursively() {
    let cluster = cluster().await;
    let strategy = cluster.run("explain deployment.spec.strategy --recursive").await.out;
    let fields = strategy.split_once("FIELDS:\n").unwrap().1;
    assert_eq!(
        fields,
        "  rollingUpdate\t<RollingUpdateDeployment>\n    maxSurge\t<IntOrString>\n    \
         maxUnavailable\t<IntOrString>\n  type\t<string>\n  enum: Recreate, RollingUpdate\n\n"
    );
    let pod = cluster.run("explain pod --recursive").await.out;
    assert!(pod.contains("\n    containers\t<[]Container> -required-\n      args\t<[]string>\n"), "{pod}");
    assert!(pod.contains("\n        limits\t<map[string]Quantity>\n"), "{pod}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_explained_by_its_items() {
    let cluster = cluster().await;
    let containers = cluster.run("explain pod.spec.containers").await.out;
    let head = "\
KIND:       Pod
VERSION:    v1

FIELD: containers <[]Container>


DESCRIPTION:
    List of containers belonging to the pod. Containers cannot currently be
    added or removed. There must be at least one container in a Pod. Cannot be
    updated.
    A single application container that you want to run within a pod.
    \nFIELDS:
  args\t<[]string>
    Arguments to the entrypoint. The container image's CMD is used if this is
    not provided. Variable references $(VAR_NAME) are expanded using the
";
    assert!(containers.starts_with(head), "{containers}");
    let policy = cluster.run("explain pod.spec.containers.imagePullPolicy").await.out;
    assert!(
        policy.contains(
            "FIELD: imagePullPolicy <string>\nENUM:\n    Always\n    IfNotPresent\n    Never\n\nDESCRIPTION:\n"
        ),
        "{policy}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_said() {
    let cluster = cluster().await;
    cluster.run("explain pod.spec.nothing").await.fails("error: field \"nothing\" does not exist");
    cluster.run("explain nothing").await.fails("error: the server doesn't have a resource type \"nothing\"");
}
