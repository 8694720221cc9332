//! The vocabulary of the project, pure: no tokio, no IO, no clock. Time and state are arguments.
//!
//! - [`field`]: where in an object something is wrong, in upstream's words.
//! - [`status`]: the error every API answer carries ([`Status`](status::Status)), one constructor per reason.
//! - [`name`]: what a name, label, key or port name may look like.
//! - [`meta`]: rules for `metadata`, the same for every kind.
//! - [`quantity`]: exact decimal amounts such as `100m` and `2Gi`.
//! - [`object`]: [`Object`](object::Object) (any object behind one trait), [`Kind`](object::Kind) (the rules of one
//!   kind), [`Rules`](object::Rules) (the same, object safe) and [`Typed`](object::Typed), the bridge between them.
//! - [`schema`]: the type of every field, and decoding against it.
//! - [`cbor`]: CBOR, read and written as Kubernetes does.
//! - [`resource`]: the row that describes a kind, and the table of all rows. Routes, discovery, OpenAPI, Table output
//!   and the names that the command line knows are derived from it.
//! - [`patch`]: JSON Patch, merge patch and strategic merge patch, applied and made.
//! - [`apply`]: server-side apply, and who owns which fields.
//! - [`pod_security`]: what the Pod Security Standards say about a pod.
//! - [`selector`]: which objects are meant, by label and by field.
//! - [`quota`]: what objects use of a quota.
//! - [`cron`]: when the jobs of a cron job are to run.
//! - [`table`], [`discovery`], [`openapi`]: documents derived from the rows.
//! - [`kinds`]: the built-in rows, and one file with the rules of each kind.

pub mod apply;
pub mod cbor;
pub mod cron;
pub mod discovery;
pub mod field;
pub mod kinds;
pub mod meta;
pub mod name;
pub mod object;
pub mod openapi;
pub mod patch;
pub mod pod_security;
pub mod quantity;
pub mod quota;
pub mod resource;
pub mod schema;
pub mod selector;
pub mod status;
pub mod table;
