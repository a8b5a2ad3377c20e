//! What every family of HTTP routes shares: who may use the server, connections, request bodies, errors, the stream of
//! events, and the routes for administrators.
//!
//! A family ([`Family`]) is a crate of its own with its own routes, bodies and error replies; [`router`] joins families.
//! Families depend on this crate and on the use cases, never on each other. Errors are neutral ([`ApiError`]) until they
//! leave: the family that a path belongs to gives them their body.
//!
//! Not here: any use case, and any protocol of a client.

#![cfg_attr(test, allow(clippy::disallowed_methods))]

mod access;
mod app;
mod blocking;
mod body;
mod connections;
mod error;
mod json;
pub mod multipart;
mod ops;
#[cfg(feature = "testing")]
pub mod testing;

pub use access::{Access, AccessError};
pub use app::{Family, RenderError, router};
pub use blocking::blocking;
pub use connections::serve;
pub use error::{ApiError, shown};
pub use json::{BodyMemory, Json, LargeBodies, LargeJson, media_type, parse, parse_as, text_body};
pub use ops::{Device, Devices, EventFeed, MetricsHandle, Operations};

/// The largest body of a request that describes something in JSON or as a form, in bytes.
pub const MAX_TEXT_BYTES: usize = 1 << 20;
/// The largest body that brings a file, in bytes: a piece of a movie (the client's have 10 MiB) or a model with its
/// ensemble.
pub const MAX_FILE_BYTES: usize = 256 << 20;
