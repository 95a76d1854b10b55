//! The service that [`ResilientSseLayer`](super::ResilientSseLayer) wraps around an inner service.

use std::{
    borrow::Cow,
    fmt,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
};

use http::{Method, Request, Response, Uri, request::Parts};
use tower_service::Service;

use super::{admit::Admission, asked::Asked, future::ResilientSseFuture, inner::inner_request};
use crate::{
    layer::context::StreamContext,
    model::{
        config::OnUnavailable,
        id::{Cursor, Owner, StreamId, StreamKey},
        metadata::{METADATA_BYTES, MetadataTooLarge},
        turn::Turn,
    },
    node::{
        Node,
        reject::Rejection,
        request::{asks_by_name, last_seen},
    },
    produce::inner_body::InnerBody,
    protocol::{admission::Position, cursor::LastSeen},
    recover::recover,
    route::{
        identify::{Identity, Name},
        settings::Route,
    },
    telemetry::Bypassed,
};

/// The service of a [`ResilientSseLayer`](super::ResilientSseLayer).
pub struct ResilientSseService<S> {
    inner: S,
    node: Arc<Node>,
    route: Arc<Route>,
}

impl<S> ResilientSseService<S> {
    pub(super) fn new(inner: S, node: Arc<Node>, route: Arc<Route>) -> Self {
        Self { inner, node, route }
    }
}

impl<S: Clone> Clone for ResilientSseService<S> {
    fn clone(&self) -> Self {
        Self::new(self.inner.clone(), Arc::clone(&self.node), Arc::clone(&self.route))
    }
}

impl<S: fmt::Debug> fmt::Debug for ResilientSseService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResilientSseService").field("inner", &self.inner).field("route", &self.route).finish()
    }
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for ResilientSseService<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone,
    S::Future: Send + 'static,
    S::Error: 'static,
    ResBody: InnerBody,
{
    type Response = Response<crate::ResilientSseBody<ResBody>>;
    type Error = S::Error;
    type Future = ResilientSseFuture<S, ReqBody, ResBody>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let (parts, body) = request.into_parts();
        if let Some(name) = self.recovery_of(&parts) {
            let answer = recover(Arc::clone(&self.node), parts, name, Some(self.route.voice));
            return ResilientSseFuture::recovering(Arc::clone(&self.node), Box::pin(answer));
        }
        if let Some(reason) = passes(&parts.method) {
            return self.forward(Request::from_parts(parts, body), reason, None);
        }
        let identity = self.route.identify.identify(&parts);
        if matches!(identity.name, Name::Bypass | Name::OtherPath) {
            // A layer around this one may record the stream.
            let reason = parts.extensions.get::<StreamContext>().is_none().then_some(Bypassed::Bypass);
            // A template that has matched before is right, and this path is another route's.
            let is_wrong = matches!(identity.name, Name::OtherPath) && !self.route.matched.load(Ordering::Relaxed);
            let unmatched = is_wrong.then(|| parts.uri.path().into());
            return self.forward(Request::from_parts(parts, body), reason, unmatched);
        }
        if !self.route.matched.load(Ordering::Relaxed) {
            self.route.matched.store(true, Ordering::Relaxed);
        }
        match self.asked(&parts, identity) {
            Err(rejection) => ResilientSseFuture::rejected(&self.node, &rejection, &self.node.head(&parts)),
            Ok(Wanted::New(asked, is_unowned)) => match self.refused(&asked, is_unowned) {
                Some(admission) => ResilientSseFuture::answering(&self.node, &self.route, &asked, admission),
                None => self.generate(Request::from_parts(parts, body), asked, is_unowned),
            },
            Ok(Wanted::Named(asked)) => self.admit(Request::from_parts(parts, body), asked),
        }
    }
}

/// A request, once its name and its cursor are read.
enum Wanted {
    /// The request asks for a new stream. The flag says whether the owner rule found no owner, which matters only if
    /// the inner service answers with an event stream.
    New(Asked, bool),
    /// The request names a stream.
    Named(Asked),
}

/// Returns `Some` if a request of this method passes the layer untouched. The inner value is the reason under which its
/// event stream is counted. A HEAD request has no event stream to count.
fn passes(method: &Method) -> Option<Option<Bypassed>> {
    match *method {
        Method::GET | Method::POST => None,
        Method::HEAD => Some(None),
        _ => Some(Some(Bypassed::Method)),
    }
}

impl<S> ResilientSseService<S> {
    /// Finds the stream that a request asks to recover, if the layer serves recovery itself. A request whose path names
    /// no stream goes to the inner service, even with the suffix.
    fn recovery_of(&self, parts: &Parts) -> Option<Name> {
        let target = self.recovery_target(parts)?;
        let mut asked = parts.clone();
        asked.uri = target;
        // Try both methods: the identifier may be limited to POST, and a recovery request is a GET.
        let mut names = [Method::GET, Method::POST].into_iter().map(|method| {
            asked.method = method;
            self.route.identify.identify(&asked).name
        });
        names.find(|name| matches!(name, Name::Id(_) | Name::Malformed(_)))
    }

    /// Returns the target of a recovery request without the suffix, if the layer serves recovery itself.
    fn recovery_target(&self, parts: &Parts) -> Option<Uri> {
        let suffix = self.route.recover_suffix.as_deref()?;
        let path = parts.uri.path().strip_suffix(suffix).filter(|path| !path.is_empty())?;
        let target = match parts.uri.query() {
            Some(query) => format!("{path}?{query}"),
            None => path.to_owned(),
        };
        target.parse().ok()
    }

    /// Finds the request's owner, stream and cursor.
    fn asked(&self, parts: &Parts, mut identity: Identity) -> Result<Wanted, Rejection> {
        let owner = self.node.find_owner(parts);
        let fingerprint = self.route.fingerprint.as_ref().and_then(|fingerprint| fingerprint(parts));
        let (turn, unmatched_path) = self.turn(parts, &mut identity)?;
        check_kept(&mut identity, fingerprint.as_deref(), parts)?;
        let begins_turn = turn.is_some();
        let kind = identity.kind.unwrap_or_else(|| self.route.kind.clone());
        let named = || owner.clone().ok_or_else(|| self.node.unauthorized(parts.uri.path()));
        let asked = |owner: Owner, id: StreamId, prefix: Option<StreamId>, position| Asked {
            key: StreamKey::new(owner, id),
            position,
            prefix,
            kind,
            metadata: identity.metadata,
            fingerprint,
            turn,
            unmatched_path,
            begins: false,
            is_stale: false,
            headers: self.route.headers(),
            comes_again: asks_by_name(parts),
            version: parts.version,
            waited_for: false,
            opened: tokio::time::Instant::now(),
            head: self.node.head(parts),
        };
        match identity.name {
            Name::Bypass | Name::OtherPath => Err(Rejection::NotFound),
            Name::Malformed(error) => Err(Rejection::MalformedId(error)),
            Name::Id(id) => {
                let position = Position::of(&last_seen(parts, Some(&id)));
                Ok(Wanted::Named(asked(named()?, id, None, position)))
            }
            Name::Generate => match last_seen(parts, None) {
                LastSeen::Event(Cursor { stream: Some(id), at }) if id.is_made_up() => {
                    Ok(Wanted::Named(asked(named()?, id.clone(), Some(id), Position::After(at))))
                }
                seen => {
                    // A cursor without a stream id cannot belong to a stream whose id the library made up.
                    let position = match seen {
                        LastSeen::Nothing | LastSeen::Live => Position::Newest,
                        LastSeen::Event(_) | LastSeen::Unreadable => Position::Unreadable,
                    };
                    let id = StreamId::from_random(self.node.random.u128());
                    if begins_turn {
                        let asked = asked(named()?, id.clone(), Some(id), position);
                        return Ok(Wanted::Named(Asked { begins: true, ..asked }));
                    }
                    let is_unowned = owner.is_none();
                    let owner = owner.clone().unwrap_or(Owner::ANONYMOUS);
                    Ok(Wanted::New(asked(owner, id.clone(), Some(id), position), is_unowned))
                }
            },
        }
    }

    /// Finds the conversation to which a request adds a turn. Returns the request's path instead if the conversation's
    /// path template does not match it.
    ///
    /// The conversation's identifier may also name a kind and metadata. They are added to the stream's identity, unless
    /// the stream's own identifier has set them.
    fn turn(&self, parts: &Parts, identity: &mut Identity) -> Result<(Option<Turn>, Option<Box<str>>), Rejection> {
        let Some(identify) = &self.route.conversation else { return Ok((None, None)) };
        let Identity { name, kind, metadata } = identify.identify(parts);
        let conversation = match name {
            Name::Id(conversation) => conversation,
            Name::Malformed(error) => return Err(Rejection::MalformedConversation(error)),
            Name::OtherPath => return Ok((None, Some(parts.uri.path().into()))),
            Name::Bypass | Name::Generate => return Ok((None, None)),
        };
        identity.kind = identity.kind.take().or(kind);
        let own = std::mem::replace(&mut identity.metadata, metadata);
        identity.metadata.retain(|(key, _)| own.iter().all(|(other, _)| other != key));
        identity.metadata.extend(own);
        Ok((Some(Turn { conversation, overlap: self.route.overlap }), None))
    }

    /// Returns the answer to a request whose event stream would be refused, so that the inner service does not run for
    /// it.
    ///
    /// In a drain this is so only for a client that asks for an event stream by name. Others may get an answer of
    /// another kind.
    fn refused(&self, asked: &Asked, is_unowned: bool) -> Option<Admission> {
        if is_unowned && asked.comes_again {
            return Some(Admission::Reject(self.node.unauthorized("-")));
        }
        if self.node.is_draining() && asked.comes_again {
            return Some(Admission::Retry);
        }
        // An open breaker is not probed here: the guardian's beats find out when the store is back.
        let broken = self.node.store.is_away();
        match self.route.on_unavailable {
            _ if !broken => None,
            _ if asked.position.is_reconnect() => Some(Admission::Retry),
            OnUnavailable::Serve => None,
            OnUnavailable::Retry => Some(Admission::Retry),
            OnUnavailable::Status => Some(Admission::Reject(Rejection::Unavailable)),
        }
    }

    /// Passes a request to the inner service untouched. An event stream is marked as not recorded.
    fn forward<ReqBody, ResBody>(
        &mut self,
        request: Request<ReqBody>,
        reason: Option<Bypassed>,
        unmatched_path: Option<Box<str>>,
    ) -> ResilientSseFuture<S, ReqBody, ResBody>
    where
        S: Service<Request<ReqBody>, Response = Response<ResBody>>,
        ResBody: InnerBody,
    {
        ResilientSseFuture::forwarding(Arc::clone(&self.node), self.inner.call(request), reason, unmatched_path)
    }

    /// Calls the inner service first, and registers its answer only if that is an event stream.
    fn generate<ReqBody, ResBody>(
        &mut self,
        request: Request<ReqBody>,
        asked: Asked,
        is_unowned: bool,
    ) -> ResilientSseFuture<S, ReqBody, ResBody>
    where
        S: Service<Request<ReqBody>, Response = Response<ResBody>>,
        S::Future: Send + 'static,
        ResBody: InnerBody,
    {
        // Without an owner there will be no stream, so the handler gets no context.
        let context = (!is_unowned).then(|| StreamContext::new(&self.node, &self.route, &asked, None));
        let future = self.inner.call(inner_request(request, context.as_ref()));
        ResilientSseFuture::generating(Arc::clone(&self.node), Arc::clone(&self.route), future, asked, context)
    }

    /// Asks the store first, and calls the inner service only for an admitted request.
    fn admit<ReqBody, ResBody>(
        &mut self,
        request: Request<ReqBody>,
        asked: Asked,
    ) -> ResilientSseFuture<S, ReqBody, ResBody>
    where
        S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone,
        ResBody: InnerBody,
    {
        // The future takes the service that is ready, since it calls the service only after the admission.
        let next = self.inner.clone();
        let ready = std::mem::replace(&mut self.inner, next);
        let admission = Admission::ask(Arc::clone(&self.node), Arc::clone(&self.route), asked.clone());
        ResilientSseFuture::admitting(
            Arc::clone(&self.node),
            Arc::clone(&self.route),
            Box::pin(admission),
            ready,
            request,
            asked,
        )
    }
}

/// Rejects a request whose metadata, kind and fingerprint exceed 4 KiB. A request with a cursor is served without its
/// metadata instead, unless its kind and fingerprint alone exceed the limit, so that no stream can have them.
fn check_kept(identity: &mut Identity, fingerprint: Option<&str>, parts: &Parts) -> Result<(), Rejection> {
    let made = |text: Option<&str>| text.map_or(0, str::len);
    let kind = identity.kind.as_ref().filter(|kind| matches!(kind, Cow::Owned(_)));
    let fixed = made(fingerprint) + made(kind.map(|kind| &**kind));
    let bytes = fixed + identity.metadata.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
    if bytes <= METADATA_BYTES {
        return Ok(());
    }
    if last_seen(parts, None) == LastSeen::Nothing {
        return Err(Rejection::MetadataTooLarge(MetadataTooLarge { bytes }));
    }
    identity.metadata.clear();
    if fixed > METADATA_BYTES { Err(Rejection::OtherRequest) } else { Ok(()) }
}
