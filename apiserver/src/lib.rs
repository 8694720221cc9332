//! The request pipeline: generic registry and verbs, watch cache, authentication, authorization, admission, discovery.
//!
//! A request goes through one function, [`pipeline::handle`]: connection → request info → authentication → audit →
//! flow control → authorization → decode → default → mutate → validate → store → encode. It arrives over TLS
//! ([`ApiServer::serve`]) or from the same process ([`ApiServer::in_process`]); both take the same way.
//!
//! Map of the crate:
//! - [`server`]: starts and stops it all; [`pipeline`]: the way of a request; [`request`]: what a request asks for
//! - [`registry`]: the verbs over every row of the resource table, and their subresources
//! - [`cache`]: the watch cache that answers every read
//! - `agents`, `proxy`: requests that go on to nodes, pods and services
//! - [`discovery`], [`openapi`]: what the server can do
//! - [`auth`], [`admission`], [`bootstrap`], [`pki`]: who may do what, and the objects that say so
//! - [`flow`]: who may work when not everybody can; [`audit`], [`metrics`], [`health`]: what the server tells of itself

pub mod admission;
mod agents;
pub mod audit;
pub mod auth;
pub mod body;
pub mod bootstrap;
pub mod cache;
pub mod config;
pub mod connection;
pub mod context;
pub mod discovery;
pub mod flow;
pub mod fuzz;
pub mod health;
pub mod join;
pub mod metrics;
pub mod negotiate;
mod notes;
pub mod openapi;
pub mod pipeline;
pub mod pki;
mod proxy;
pub mod registry;
pub mod request;
pub mod respond;
pub mod routes;
mod sealed;
pub mod server;
mod unread;
mod user;

pub use body::Body;
pub use config::Config;
pub use connection::Connection;
pub use request::{Attributes, RequestInfo};
pub use sealed::Sealed;
pub use server::{ApiServer, InProcess, StartError};
pub use user::{ALL_AUTHENTICATED, ALL_UNAUTHENTICATED, ANONYMOUS, MASTERS, UserInfo};
