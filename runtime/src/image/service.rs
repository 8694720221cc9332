//! The CRI ImageService over [`Images`].

use std::collections::HashMap;
use std::pin::Pin;

use cri::image_service_server::ImageService as Service;
use futures::Stream;
use tonic::{Request, Response, Status};
use tracing::debug;

use super::document::DOCUMENT_LIMIT;
use super::{Image, ImageError, Images};

/// Images in one message of a stream: far below gRPC's limit for a message.
const STREAM_CHUNK: usize = 200;

/// Serves CRI's ImageService.
#[derive(Clone, Debug)]
pub struct ImageService {
    images: Images,
}

impl ImageService {
    /// Serves these images.
    pub fn new(images: Images) -> Self {
        Self { images }
    }

    fn filtered(&self, filter: Option<cri::ImageFilter>) -> Vec<cri::Image> {
        let wanted = filter.and_then(|filter| filter.image).map(|spec| spec.image).unwrap_or_default();
        let images = match wanted.as_str() {
            "" => self.images.list(),
            wanted => self.images.resolve(wanted).into_iter().collect(),
        };
        images.iter().map(|image| shown(image)).collect()
    }
}

fn shown(image: &Image) -> cri::Image {
    // Without the group; a number or a name.
    let user = image.config.user.split(':').next().unwrap_or_default();
    let uid = user.parse::<i64>().ok();
    cri::Image {
        id: image.id.clone(),
        repo_tags: image.repo_tags.clone(),
        repo_digests: image.repo_digests.clone(),
        size: image.size,
        uid: uid.map(|value| cri::Int64Value { value }),
        username: if uid.is_none() { user.to_owned() } else { String::new() },
        spec: None,
        pinned: image.pinned,
    }
}

impl From<ImageError> for Status {
    fn from(error: ImageError) -> Self {
        let text = error.to_string();
        if error.is_not_found() {
            Self::not_found(text)
        } else if error.is_invalid() {
            Self::invalid_argument(text)
        } else {
            Self::unknown(text)
        }
    }
}

fn image_of(spec: Option<cri::ImageSpec>) -> Result<String, Status> {
    match spec {
        Some(spec) if !spec.image.is_empty() => Ok(spec.image),
        _ => Err(Status::invalid_argument("no image is named")),
    }
}

#[tonic::async_trait]
impl Service for ImageService {
    async fn list_images(
        &self,
        request: Request<cri::ListImagesRequest>,
    ) -> Result<Response<cri::ListImagesResponse>, Status> {
        Ok(Response::new(cri::ListImagesResponse { images: self.filtered(request.into_inner().filter) }))
    }

    type StreamImagesStream = Pin<Box<dyn Stream<Item = Result<cri::StreamImagesResponse, Status>> + Send>>;

    async fn stream_images(
        &self,
        request: Request<cri::StreamImagesRequest>,
    ) -> Result<Response<Self::StreamImagesStream>, Status> {
        let images = self.filtered(request.into_inner().filter);
        let messages: Vec<_> = images
            .chunks(STREAM_CHUNK)
            .map(|chunk| Ok(cri::StreamImagesResponse { images: chunk.to_vec() }))
            .collect();
        Ok(Response::new(Box::pin(futures::stream::iter(messages))))
    }

    async fn image_status(
        &self,
        request: Request<cri::ImageStatusRequest>,
    ) -> Result<Response<cri::ImageStatusResponse>, Status> {
        let request = request.into_inner();
        let Some(image) = self.images.resolve(&image_of(request.image)?) else {
            return Ok(Response::new(cri::ImageStatusResponse::default()));
        };
        let mut info = HashMap::new();
        if request.verbose {
            info.insert("info".to_owned(), self.images.describe(&image).await?);
        }
        Ok(Response::new(cri::ImageStatusResponse { image: Some(shown(&image)), info }))
    }

    async fn pull_image(
        &self,
        request: Request<cri::PullImageRequest>,
    ) -> Result<Response<cri::PullImageResponse>, Status> {
        let request = request.into_inner();
        let reference = image_of(request.image)?;
        let pulled = self.images.pull(&reference, request.auth).await;
        let image = pulled.inspect_err(|error| debug!(%reference, %error, "pull failed"))?;
        Ok(Response::new(cri::PullImageResponse { image_ref: image.id.clone() }))
    }

    async fn remove_image(
        &self,
        request: Request<cri::RemoveImageRequest>,
    ) -> Result<Response<cri::RemoveImageResponse>, Status> {
        self.images.remove(&image_of(request.into_inner().image)?).await?;
        Ok(Response::new(cri::RemoveImageResponse {}))
    }

    async fn image_fs_info(
        &self,
        _request: Request<cri::ImageFsInfoRequest>,
    ) -> Result<Response<cri::ImageFsInfoResponse>, Status> {
        let (root, usage) = self.images.fs_usage()?;
        let timestamp = self.images.inner.clock.now().as_nanosecond();
        let filesystem = cri::FilesystemUsage {
            timestamp: i64::try_from(timestamp).unwrap_or(i64::MAX),
            fs_id: Some(cri::FilesystemIdentifier { mountpoint: root }),
            used_bytes: Some(cri::UInt64Value { value: usage.bytes }),
            inodes_used: Some(cri::UInt64Value { value: usage.inodes }),
        };
        // Both are below one directory; what containers write is reported with the containers.
        Ok(Response::new(cri::ImageFsInfoResponse {
            image_filesystems: vec![filesystem.clone()],
            container_filesystems: vec![filesystem],
        }))
    }
}

impl Images {
    /// What an image is made from, as JSON in the shape that `crictl inspecti` shows.
    async fn describe(&self, image: &Image) -> Result<String, ImageError> {
        let chain_id = image.layers.last().map(|layer| layer.chain_id.clone()).unwrap_or_default();
        let id = image.id.clone();
        self.blocking(move |store| {
            let path = store.blob(&id);
            let config = super::files::read_limited(&path, DOCUMENT_LIMIT)?;
            let config: serde_json::Value =
                serde_json::from_slice(&config).map_err(|e| ImageError::content(id, e))?;
            Ok(serde_json::json!({"chainID": chain_id, "imageSpec": config}).to_string())
        })
        .await
    }

    /// Where images are and what they take: unpacked layers and the blobs they came from.
    fn fs_usage(&self) -> Result<(String, super::files::Usage), ImageError> {
        let store = &self.inner.store;
        let snapshot = store.snapshot()?;
        let mut usage = snapshot.unpacked();
        usage += snapshot.blobs();
        Ok((store.root().display().to_string(), usage))
    }
}

#[cfg(test)]
mod tests;
