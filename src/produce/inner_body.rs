//! The bodies that a layer can protect.

use http_body::Body;

use crate::model::error::BoxError;

/// A response body that a [`ResilientSseLayer`](crate::ResilientSseLayer) can protect.
///
/// It is implemented for every `Send + 'static` body whose errors can be boxed. The trait is sealed.
///
/// ```
/// use axum::body::Body;
/// use resilient_sse::InnerBody;
///
/// fn is_protected<B: InnerBody>() {}
/// is_protected::<Body>();
/// ```
pub trait InnerBody: Body<Error: Into<BoxError>> + Send + 'static + sealed::Sealed {}

impl<B> InnerBody for B where B: Body<Error: Into<BoxError>> + Send + 'static {}

mod sealed {
    use super::{Body, BoxError};

    pub trait Sealed {}

    impl<B> Sealed for B where B: Body<Error: Into<BoxError>> + Send + 'static {}
}
