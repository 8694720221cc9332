//! The demo application: a small web server that says who answers, and can be told to fail.
//!
//! | request | answer |
//! |---|---|
//! | `GET /` | `hello from <pod> on <node>, tag <tag>` |
//! | `GET /healthz` | 200 `ok`, or 500 after `/fail` |
//! | `/fail` | `/healthz` fails from now on |
//! | `/recover` | `/healthz` works again |
//! | `/exit?code=N` | the process ends |
//!
//! As the demo image holds nothing else, it can also ask a URL, and show its environment and files.
//!
//! On SIGTERM it goes on answering for a moment, so that clients which have not yet heard that it is ending
//! lose nothing, and then ends with 0.

mod ask;

use std::convert::Infallible;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base::{Clock, Tasks};
use bytes::Bytes;
use clap::Args;
use http::{Request, Response, StatusCode, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::Failure;
use crate::failure::Because;
use crate::roles::process;

#[derive(Args, Clone, Debug)]
pub(crate) struct Hello {
    /// Port to listen on.
    #[arg(long, default_value_t = 8080, env = "HELLO_LISTEN_PORT")]
    port: u16,
    /// What the answer calls this version.
    #[arg(long, default_value = "none", env = "HELLO_TAG")]
    tag: String,
    /// Name of the pod; by default the host's name.
    #[arg(long, env = "POD_NAME")]
    pod: Option<String>,
    /// Name of the node.
    #[arg(long, default_value = "an unnamed node", env = "NODE_NAME")]
    node: String,
    /// Seconds to go on answering after SIGTERM.
    #[arg(long, default_value_t = 2, env = "HELLO_DRAIN_SECONDS")]
    drain_seconds: u64,
    /// Don't serve: print what a URL answers.
    #[arg(long, value_name = "URL")]
    ask: Option<Uri>,
    /// Don't serve: print a variable of the environment.
    #[arg(long, value_name = "NAME")]
    show_env: Option<String>,
    /// Don't serve: print a file.
    #[arg(long, value_name = "PATH")]
    show_file: Option<PathBuf>,
}

struct Site {
    greeting: String,
    failing: AtomicBool,
}

impl Hello {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().because("skiff hello")?;
        if let Some(url) = &self.ask {
            print!("{}", runtime.block_on(ask::ask(url))?);
        } else if let Some(name) = &self.show_env {
            println!("{}", std::env::var(name).because(name)?);
        } else if let Some(path) = &self.show_file {
            let content = std::fs::read(path).because(path.display())?;
            std::io::stdout().write_all(&content).because("stdout")?;
        } else {
            return runtime.block_on(self.serve());
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn serve(self) -> Result<ExitCode, Failure> {
        let mut end = process::Signals::new()?;
        let listener = TcpListener::bind(("::", self.port))
            .await
            .or(match std::net::TcpListener::bind(("0.0.0.0", self.port)) {
                Ok(listener) => {
                    listener.set_nonblocking(true).because("listener")?;
                    TcpListener::from_std(listener)
                }
                Err(error) => Err(error),
            })
            .because(format!("port {}", self.port))?;
        let host = || nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned());
        let pod = self.pod.clone().or_else(|| host().ok()).unwrap_or_default();
        let greeting = format!("hello from {pod} on {}, tag {}\n", self.node, self.tag);
        println!("listening on port {}: {}", self.port, greeting.trim_end());
        let site = Arc::new(Site { greeting, failing: AtomicBool::new(false) });
        let tasks = Tasks::new("hello");
        let accepting = tasks.clone();
        tasks.spawn("accept", async move {
            while let Ok((stream, _)) = listener.accept().await {
                let site = site.clone();
                accepting.spawn("connection", async move {
                    let service = service_fn(move |request| {
                        let answer = site.answer(&request);
                        async move { Ok::<_, Infallible>(answer) }
                    });
                    // A client that goes away in the middle is its own business.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        end.recv().await;
        println!("ending");
        Clock::system().wait(Duration::from_secs(self.drain_seconds)).await;
        Ok(ExitCode::SUCCESS)
    }
}

impl Site {
    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let (status, text) = match request.uri().path() {
            "/" => (StatusCode::OK, self.greeting.clone()),
            "/healthz" if self.failing.load(Ordering::Relaxed) => {
                (StatusCode::INTERNAL_SERVER_ERROR, "told to fail\n".to_owned())
            }
            "/healthz" => (StatusCode::OK, "ok\n".to_owned()),
            "/fail" => {
                self.failing.store(true, Ordering::Relaxed);
                (StatusCode::OK, "failing from now on\n".to_owned())
            }
            "/recover" => {
                self.failing.store(false, Ordering::Relaxed);
                (StatusCode::OK, "healthy again\n".to_owned())
            }
            "/exit" => {
                let query = request.uri().query().unwrap_or_default();
                let code = query.strip_prefix("code=").and_then(|code| code.parse().ok()).unwrap_or(1);
                println!("told to exit with {code}");
                std::process::exit(code)
            }
            path => (StatusCode::NOT_FOUND, format!("nothing at {path}\n")),
        };
        let mut response = Response::new(Full::new(Bytes::from(text)));
        *response.status_mut() = status;
        response
    }
}
