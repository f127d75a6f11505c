//! The routes. HTTP in, HTTP out: what an answer is worth to a cache, what a refusal's status is, how long a body may be and take.
//!
//! A ticket may be kept by the client alone (`private`), for as long as it need not be refreshed. One that says when to come (`connect_after`)
//! is asked for again before it is used (`no-cache`): by its `ETag` that costs nothing once the storm is over.

use std::sync::Arc;

use axum::body::{Body, Bytes, HttpBody as _, to_bytes};
use axum::extract::{Extension, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use axum::routing::get;
use axum::{Router, middleware};

use super::ask::Ask;
use super::asker::{Credentials, Refused};
use super::connections::Reached;
use super::service::{Answer, NoTicket, Now, Service, Tag};
use super::ticket::{Health, Refusal, VERSION};
use crate::limits;
use crate::sys;

/// What the lookup offers, for machines.
pub const OPENAPI: &str = include_str!("openapi.json");

const JSON: HeaderValue = HeaderValue::from_static("application/json");

pub(super) fn router(service: Arc<Service>) -> Router {
    Router::new()
        .route("/v1/ticket", get(by_query).post(by_body))
        .route("/v1/health", get(health))
        .route("/v1/openapi.json", get(openapi))
        .fallback(async || refusal(StatusCode::NOT_FOUND, "no such path; see /v1/openapi.json"))
        .method_not_allowed_fallback(async || {
            let what = "not with this method; see /v1/openapi.json";
            refusal(StatusCode::METHOD_NOT_ALLOWED, what)
        })
        .layer(middleware::map_response(finish))
        .with_state(service)
}

/// What every answer has.
async fn finish(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}

fn now() -> Now {
    Now {
        nanos: sys::clock::nanos(),
        unix_millis: sys::clock::unix_millis(),
    }
}

async fn by_query(
    State(service): State<Arc<Service>>,
    Extension(reached): Extension<Reached>,
    request: Request,
) -> Response {
    let now = now();
    if !service.admits(now) {
        return too_many(&service, reached);
    }
    let ask = match Ask::from_query(request.uri().query().unwrap_or_default()) {
        Ok(ask) => ask,
        Err(error) => return refusal(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    let headers = request.headers();
    let known = tags(headers);
    let credentials = credentials(headers);
    match service.ticket(&ask, &credentials, reached.0, &known, now) {
        Ok(Answer::Ticket { json, tag, keep }) => {
            let cache = match keep {
                Some(seconds) => format!("private, max-age={seconds}"),
                None => "private, no-cache".to_owned(),
            };
            let mut response = body(StatusCode::OK, json);
            mark(response.headers_mut(), tag, &cache);
            response
        }
        Ok(Answer::Unchanged { tag, keep }) => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            mark(
                response.headers_mut(),
                tag,
                &format!("private, max-age={keep}"),
            );
            response
        }
        Err(error) => no_ticket(&service, reached, error),
    }
}

async fn by_body(
    State(service): State<Arc<Service>>,
    Extension(reached): Extension<Reached>,
    request: Request,
) -> Response {
    if !service.admits(now()) {
        return too_many(&service, reached);
    }
    let (head, stream) = request.into_parts();
    if !is_json(&head.headers) {
        let what = "the body is to be application/json";
        return refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, what);
    }
    let bytes = match read(stream).await {
        Ok(bytes) => bytes,
        Err(response) => return response,
    };
    let ask = match Ask::from_json(&bytes) {
        Ok(ask) => ask,
        Err(error) => return refusal(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    let credentials = credentials(&head.headers);
    match service.ticket(&ask, &credentials, reached.0, &[], now()) {
        // What was posted is kept by no cache, so the tag is of no use.
        Ok(Answer::Ticket { json, .. }) => body(StatusCode::OK, json),
        Ok(Answer::Unchanged { .. }) => unreachable!("no tag was sent"),
        Err(error) => no_ticket(&service, reached, error),
    }
}

/// A body within its bounds, or what to answer.
async fn read(stream: Body) -> Result<Bytes, Response> {
    let too_long = || {
        last(refusal(
            StatusCode::PAYLOAD_TOO_LARGE,
            "the body is too long, or broken off",
        ))
    };
    // What says beforehand that it is too long is not waited for.
    if stream.size_hint().lower() > limits::LOOKUP_BODY_BYTES as u64 {
        return Err(too_long());
    }
    let whole = to_bytes(stream, limits::LOOKUP_BODY_BYTES);
    match tokio::time::timeout(limits::LOOKUP_BODY_TIME, whole).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) => Err(too_long()),
        Err(_) => Err(last(refusal(
            StatusCode::REQUEST_TIMEOUT,
            "the body took too long",
        ))),
    }
}

/// The connection ends with it: what else comes on it belongs to a request that was not read.
fn last(mut response: Response) -> Response {
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(header::CONNECTION, close);
    response
}

async fn health(State(service): State<Arc<Service>>) -> Response {
    let draining = service.is_draining();
    let health = Health {
        v: VERSION,
        status: if draining { "draining" } else { "ok" },
        node: service.node(),
        server_time: sys::clock::unix_millis(),
    };
    let status = if draining {
        StatusCode::SERVICE_UNAVAILABLE
    } else {
        StatusCode::OK
    };
    json(status, &health)
}

async fn openapi() -> Response {
    let mut response = Response::new(Body::from(OPENAPI));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, JSON);
    let cache = HeaderValue::from_static("max-age=300");
    headers.insert(header::CACHE_CONTROL, cache);
    response
}

/// What the asker says about itself.
fn credentials(headers: &HeaderMap) -> Credentials<'_> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    match (all.next().map(HeaderValue::to_str), all.next()) {
        (None, _) => Credentials::None,
        (Some(Ok(value)), None) => Credentials::read(value),
        _ => Credentials::Unreadable,
    }
}

/// The tags that the client knows; `*` names none.
fn tags(headers: &HeaderMap) -> Vec<Tag> {
    let values = headers.get_all(header::IF_NONE_MATCH).iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|tag| {
            let tag = tag.trim();
            let tag = tag.strip_prefix("W/").unwrap_or(tag);
            Tag::read(tag.strip_prefix('"')?.strip_suffix('"')?)
        })
        .take(limits::LOOKUP_LABELS)
        .collect()
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    value
        .and_then(|value| value.split(';').next())
        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

fn mark(headers: &mut HeaderMap, tag: Tag, cache: &str) {
    set(headers, header::ETAG, &format!("\"{}\"", tag.text()));
    set(headers, header::CACHE_CONTROL, cache);
    set(headers, header::VARY, "authorization");
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    let value = HeaderValue::from_str(value).expect("digits, and words of ours");
    headers.insert(name, value);
}

fn no_ticket(service: &Service, reached: Reached, error: NoTicket) -> Response {
    match error {
        NoTicket::Asker(refused @ Refused::Unknown) => {
            let mut response = refusal(StatusCode::UNAUTHORIZED, &refused.to_string());
            let challenges = "Basic realm=\"stillwire\", charset=\"UTF-8\", Bearer";
            set(response.headers_mut(), header::WWW_AUTHENTICATE, challenges);
            response
        }
        NoTicket::Asker(refused) => refusal(StatusCode::FORBIDDEN, &refused.to_string()),
        NoTicket::NoNode => {
            let what = "no node takes clients now";
            let wait = service.patience();
            later(
                service,
                reached,
                StatusCode::SERVICE_UNAVAILABLE,
                what,
                wait,
            )
        }
        NoTicket::NoSlot(wait) => {
            let what = "too many clients come at once";
            later(
                service,
                reached,
                StatusCode::SERVICE_UNAVAILABLE,
                what,
                wait,
            )
        }
        NoTicket::NoToken => {
            let what = "the token can't be signed";
            refusal(StatusCode::INTERNAL_SERVER_ERROR, what)
        }
    }
}

fn too_many(service: &Service, reached: Reached) -> Response {
    let what = "too many questions at once";
    let wait = service.patience();
    later(service, reached, StatusCode::TOO_MANY_REQUESTS, what, wait)
}

/// Not now, and where to go meanwhile.
fn later(
    service: &Service,
    reached: Reached,
    status: StatusCode,
    what: &str,
    seconds: u32,
) -> Response {
    let refusal = Refusal {
        error: what,
        retry_after: Some(seconds),
        fallback: Some(service.fallback(reached.0)),
    };
    let mut response = json(status, &refusal);
    let seconds = seconds.to_string();
    set(response.headers_mut(), header::RETRY_AFTER, &seconds);
    response
}

fn refusal(status: StatusCode, what: &str) -> Response {
    let refusal = Refusal {
        error: what,
        retry_after: None,
        fallback: None,
    };
    json(status, &refusal)
}

fn json(status: StatusCode, value: &impl serde::Serialize) -> Response {
    let bytes = serde_json::to_vec(value).expect("text and numbers are JSON");
    body(status, bytes)
}

fn body(status: StatusCode, json: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(json));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    response
}
