//! gRPC on a unix socket: HTTP/2 connections whose requests go to one of two services by their path.

use std::convert::Infallible;

use base::Tasks;
use cri::image_service_server::ImageServiceServer;
use cri::runtime_service_server::RuntimeServiceServer;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::UnixListener;
use tonic::body::Body;
use tonic::codegen::Service;
use tracing::{debug, warn};

use super::RuntimeService;
use crate::image::ImageService;

/// Where the calls for images go.
const IMAGES: &str = "/runtime.v1.ImageService/";

/// What is served.
#[derive(Clone)]
pub(crate) struct Services {
    pub(crate) runtime: RuntimeServiceServer<RuntimeService>,
    pub(crate) images: ImageServiceServer<ImageService>,
}

impl Services {
    /// Takes connections until the tasks end.
    pub(crate) async fn serve(self, listener: UnixListener, tasks: Tasks) {
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                // Out of descriptors: the client tries again.
                Err(error) => {
                    warn!(%error, "accept a CRI connection");
                    continue;
                }
            };
            let services = self.clone();
            let answer = service_fn(move |request| {
                let services = services.clone();
                async move { services.answer(request).await }
            });
            let connection = http2::Builder::new(OnTasks(tasks.clone()))
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), answer);
            tasks.spawn("cri connection", async move {
                if let Err(error) = connection.await {
                    debug!(%error, "CRI connection");
                }
            });
        }
    }

    async fn answer(mut self, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        match request.uri().path().starts_with(IMAGES) {
            true => self.images.call(request).await,
            false => self.runtime.call(request).await,
        }
    }
}

/// Runs the streams of a connection as tasks with an owner.
#[derive(Clone)]
struct OnTasks(Tasks);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for OnTasks {
    fn execute(&self, stream: F) {
        self.0.spawn("cri stream", stream);
    }
}
