use base::{Clock, Tasks};
use futures::StreamExt;

use super::*;

struct Node {
    service: ImageService,
    _dir: tempfile::TempDir,
}

fn node() -> Node {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("skiff"), "the binary").unwrap();
    let images =
        Images::open(dir.path(), &dir.path().join("skiff"), Clock::system(), Tasks::new("test")).unwrap();
    Node { service: ImageService::new(images), _dir: dir }
}

fn spec(image: &str) -> Option<cri::ImageSpec> {
    Some(cri::ImageSpec { image: image.to_owned(), ..Default::default() })
}

#[tokio::test]
async fn images_are_listed_streamed_and_filtered() {
    let Node { service, _dir } = node();
    let all =
        service.list_images(Request::new(cri::ListImagesRequest::default())).await.unwrap().into_inner();
    assert_eq!(all.images.len(), 3);
    let filter = Some(cri::ImageFilter { image: spec("skiff.local/hello:2") });
    let one =
        service.list_images(Request::new(cri::ListImagesRequest { filter })).await.unwrap().into_inner();
    assert_eq!(one.images[0].repo_tags, ["skiff.local/hello:2"]);
    let stream = service.stream_images(Request::new(cri::StreamImagesRequest::default())).await.unwrap();
    let streamed: Vec<_> = stream.into_inner().map(|message| message.unwrap().images).collect().await;
    assert_eq!(streamed.concat(), all.images);
}

#[tokio::test]
async fn the_status_of_an_unknown_image_is_empty_and_of_a_known_one_full() {
    let Node { service, _dir } = node();
    let status = |image: &str, verbose| cri::ImageStatusRequest { image: spec(image), verbose };
    let unknown = service.image_status(Request::new(status("nothing", false))).await.unwrap().into_inner();
    assert!(unknown.image.is_none());
    let known =
        service.image_status(Request::new(status("skiff.local/hello:1", true))).await.unwrap().into_inner();
    let image = known.image.unwrap();
    assert!(image.pinned && image.size > 0 && image.id.starts_with("sha256:"));
    assert!(known.info["info"].contains("HELLO_TAG=1"));
}

#[tokio::test]
async fn errors_have_the_codes_that_the_kubelet_knows() {
    let Node { service, _dir } = node();
    let pull = |image: &str| cri::PullImageRequest { image: spec(image), ..Default::default() };
    let missing = service.pull_image(Request::new(pull("skiff.local/nothing:1"))).await.unwrap_err();
    assert_eq!(missing.code(), tonic::Code::NotFound);
    assert_eq!(
        missing.message(),
        "failed to pull and unpack image \"skiff.local/nothing:1\": failed to resolve reference \
         \"skiff.local/nothing:1\": skiff.local/nothing:1: not found"
    );
    for invalid in ["", "UPPER"] {
        let error = service.pull_image(Request::new(pull(invalid))).await.unwrap_err();
        assert_eq!(error.code(), tonic::Code::InvalidArgument, "{invalid}");
    }
    let image = service.pull_image(Request::new(pull("skiff.local/hello:1"))).await.unwrap().into_inner();
    assert!(image.image_ref.starts_with("sha256:"));
    let unknown = cri::RemoveImageRequest { image: spec("nothing:1") };
    service.remove_image(Request::new(unknown)).await.unwrap();
}

#[tokio::test]
async fn the_filesystem_is_reported() {
    let Node { service, _dir } = node();
    let info = service.image_fs_info(Request::new(cri::ImageFsInfoRequest {})).await.unwrap().into_inner();
    let filesystem = &info.image_filesystems[0];
    assert!(filesystem.fs_id.as_ref().unwrap().mountpoint.ends_with("/images"));
    assert!(filesystem.used_bytes.unwrap().value > 0 && filesystem.timestamp > 0);
    assert_eq!(info.container_filesystems.len(), 1);
}

#[test]
fn the_user_is_a_number_or_a_name() {
    let image = |user: &str| {
        let config = crate::image::ImageConfig { user: user.to_owned(), ..Default::default() };
        let record =
            crate::image::store::Record { manifest: None, size: 1, pinned: false, config, layers: vec![] };
        let shown = shown(&Image::new("sha256:x".to_owned(), record));
        (shown.uid.map(|uid| uid.value), shown.username)
    };
    assert_eq!(image(""), (None, String::new()));
    assert_eq!(image("1000:1"), (Some(1000), String::new()));
    assert_eq!(image("nobody:nogroup"), (None, "nobody".to_owned()));
}
