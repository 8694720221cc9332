//! The parts of resources that have paths of their own.

pub mod binding;
pub mod eviction;
pub mod scale;

use std::sync::Arc;

use api::object::{Kind, Typed};
use api::resource::{Action, Answer, Backing, Resource, Scope, Subresource, Verbs};
use api::schema::TypeRef;
use api::status::Status;
use bytes::Bytes;
use http::request::Parts;
use http::{Response, StatusCode};
use hyper::upgrade::OnUpgrade;

use crate::body::{Body, RequestBody};
use crate::context::Context;
use crate::registry::options::WriteOptions;
use crate::registry::update::Part;
use crate::registry::{answer_object, decode, patch, read, update};
use crate::server::Server;
use crate::{agents, proxy};

/// Answers a verb on a subresource.
pub async fn answer(
    server: &Arc<Server>,
    context: &Context<'_>,
    row: &Arc<Resource>,
    subresource: Subresource,
    parts: &Parts,
    body: RequestBody,
    upgrade: Option<OnUpgrade>,
) -> Result<Response<Body>, Status> {
    match subresource.action {
        Action::Log => return agents::log(server, context).await,
        Action::Exec => return agents::streams(server, context, agents::Streams::Exec, parts, upgrade).await,
        Action::Attach => {
            return agents::streams(server, context, agents::Streams::Attach, parts, upgrade).await;
        }
        Action::PortForward => return agents::port_forward(server, context, parts, upgrade).await,
        Action::Proxy => return proxy::answer(server, context, row, parts, body, upgrade).await,
        _ => {}
    }
    let part = match subresource.action {
        Action::Status => Part::Status,
        _ => Part::Change(&subresource.name),
    };
    if context.info.verb == "get" && subresource.action != Action::Scale {
        return read::get(server, context, row).await;
    }
    let body = context.read_body(body, server.config.max_body).await?;
    match (subresource.action, context.info.verb) {
        (Action::Scale, verb) => scale::answer(server, context, row, verb, body).await,
        (Action::Status | Action::Change, "update") => update::update(server, context, row, part, body).await,
        (Action::Status | Action::Change, "patch") => patch::answer(server, context, row, part, body).await,
        (Action::Binding, "create") => {
            let options = WriteOptions::read(&context.info.query, "CreateOptions")?;
            let object = spoken(context, &body, &options)?;
            binding::bind(server, context, &object, &options).await
        }
        (Action::Eviction, "create") => {
            let options = WriteOptions::read(&context.info.query, "CreateOptions")?;
            let object = spoken(context, &eviction::of_today(context, body), &options)?;
            eviction::evict(server, context, row, object, &options).await
        }
        (Action::Token, "create") => {
            let options = WriteOptions::read(&context.info.query, "CreateOptions")?;
            let object = spoken(context, &body, &options)?;
            let (namespace, name) = (&context.info.namespace, &context.info.name);
            let object = server.auth.tokens().issue(context.user, namespace, name, object)?;
            answer_object(StatusCode::CREATED, context.accept, &object)
        }
        _ => Err(Status::method_not_allowed()),
    }
}

/// The object of a subresource that speaks a kind of its own.
fn spoken<T: Kind>(context: &Context<'_>, body: &Bytes, options: &WriteOptions) -> Result<T, Status> {
    let object = decode::object(context, &spoken_row::<T>(), body, options.validation)?;
    let object = object.into_any().downcast::<T>();
    object
        .map(|object| *object)
        .map_err(|_| Status::internal(format_args!("the object is not a {}", T::KIND)))
}

/// A row for a kind that only subresources speak, and that is in no table.
pub(crate) fn spoken_row<T: Kind>() -> Resource {
    Resource {
        group: T::GROUP.into(),
        reported_group: T::GROUP.into(),
        version: T::VERSION.into(),
        kind: T::KIND.into(),
        list_kind: format!("{}List", T::KIND).into(),
        plural: T::KIND.to_lowercase().into(),
        singular: T::KIND.to_lowercase().into(),
        short_names: Vec::new(),
        categories: Vec::new(),
        scope: Scope::Namespaced,
        verbs: Verbs::NONE,
        subresources: Vec::new(),
        backing: Backing::Answered(Answer::Binding),
        sealed: false,
        schema: TypeRef::builtin(T::GROUP, T::VERSION, T::KIND).unwrap_or_else(TypeRef::unknown),
        rules: Arc::new(Typed::<T>::new(true)),
    }
}
