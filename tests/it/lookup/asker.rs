//! Who may ask: an app's back end, a client with its app's JWT, nobody else; and the tokens they get.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};

use super::http::{Http, Response};
use super::{Scratch, launch};
use crate::support::Server;

const APPS: &str = r#"
[[app]]
key = "shop"
secrets = ["correct horse battery"]

[[app]]
key = "news"
secrets = ["another secret of theirs"]
"#;

const ISSUERS: &str = r#"
[[issuer]]
iss = "https://id.example.com"
algorithm = "HS256"
key = "0123456789abcdef0123456789abcdef"
tenant = "shop"
acl_claim = "push"
"#;

const REVOKED: &str = "client shop/stolen\n";

/// The files stay as long as the server.
struct Guarded {
    server: Server,
    _files: Vec<Scratch>,
}

fn guarded(ask: &str) -> Guarded {
    let secret = STANDARD.encode([7; 32]);
    let keys = format!(
        "[[key]]\nid = \"k1\"\nalgorithm = \"HS256\"\nsecret = \"{secret}\"\nsign = true\n"
    );
    let files: Vec<Scratch> = [&*keys, APPS, ISSUERS, REVOKED].map(Scratch::new).into();
    let access = format!(
        "[access]\nkeys = {:?}\napps = {:?}\nissuers = {:?}\nrevoked = {:?}\n",
        files[0].path(),
        files[1].path(),
        files[2].path(),
        files[3].path()
    );
    Guarded {
        server: launch(1, &format!("ask = {ask}\nttl = 600"), &access),
        _files: files,
    }
}

fn ask(http: &mut Http, query: &str, authorization: &str) -> Response {
    http.get(
        &format!("/v1/ticket?{query}"),
        &format!("authorization: {authorization}\r\n"),
    )
}

fn basic(key: &str, secret: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{key}:{secret}")))
}

/// A JWT of the issuer, or of one that says so.
fn jwt(claims: &Value, secret: &[u8]) -> String {
    let key = EncodingKey::from_secret(secret).unwrap();
    let token = jsonwebtoken::encode(&Header::default(), claims, &key).unwrap();
    format!("Bearer {token}")
}

/// What a ticket's token says, and that it is signed at all.
fn claims(response: &Response) -> Value {
    let ticket = response.json();
    let token = ticket["token"].as_str().expect("a token");
    let parts: Vec<&str> = token.split('.').collect();
    assert_eq!(parts.len(), 3);
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(parts[1]).unwrap()).unwrap()
}

#[test]
fn an_app_asks_with_its_secret_and_for_itself() {
    let guarded = guarded("[\"app\"]");
    let mut http = Http::connect(guarded.server.lookup());
    let good = basic("shop", "correct horse battery");
    let ticket = ask(&mut http, "client_id=phone-1", &good);
    assert_eq!(ticket.status, 200);
    let said = claims(&ticket);
    assert_eq!(
        (&said["iss"], &said["sub"], &said["app"]),
        (&"stillwire".into(), &"phone-1".into(), &"shop".into())
    );
    let (from, to) = (said["iat"].as_u64().unwrap(), said["exp"].as_u64().unwrap());
    assert_eq!(to - from, 600);
    assert!(said["jti"].is_string());
    let again = claims(&ask(&mut http, "client_id=phone-1&app=shop", &good));
    assert_ne!(again["jti"], said["jti"], "each token is one of its own");

    for (query, authorization, status) in [
        ("client_id=a", basic("shop", "correct horse batterz"), 401),
        ("client_id=a", basic("shop", ""), 401),
        ("client_id=a", basic("news", "correct horse battery"), 401),
        ("client_id=a", basic("nobody", "correct horse battery"), 401),
        ("client_id=a", basic("", ""), 401),
        ("client_id=a", "Bearer x.y.z".to_owned(), 401),
        ("client_id=a&app=news", good.clone(), 403),
        ("client_id=stolen", good.clone(), 403),
    ] {
        let refused = ask(&mut http, query, &authorization);
        assert_eq!(refused.status, status, "{query} {authorization}");
        assert!(refused.json().get("token").is_none());
    }
    assert_eq!(
        http.get("/v1/ticket?client_id=a", "").status,
        401,
        "not open"
    );
    let twice = format!("authorization: {good}\r\nauthorization: {good}\r\n");
    assert_eq!(http.get("/v1/ticket?client_id=a", &twice).status, 401);
    let body = "{\"client_id\": \"phone-1\"}";
    let header = format!("authorization: {good}\r\n");
    assert_eq!(http.post(body, &header).status, 200);
    assert_eq!(http.post(body, "").status, 401);
}

#[test]
fn a_client_asks_with_its_apps_jwt_and_for_itself() {
    let guarded = guarded("[\"jwt\"]");
    let mut http = Http::connect(guarded.server.lookup());
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let secret = b"0123456789abcdef0123456789abcdef";
    let rights = json!({"pub": ["up/%c/#"], "sub": ["down/%c/#"]});
    let said = |sub: &str, exp: u64| json!({"iss": "https://id.example.com", "sub": sub, "exp": exp, "push": rights});
    let good = jwt(&said("phone-1", now + 60), secret);
    let ticket = ask(&mut http, "client_id=phone-1", &good);
    assert_eq!(ticket.status, 200);
    let token = claims(&ticket);
    assert_eq!((&token["app"], &token["acl"]), (&"shop".into(), &rights));
    for (query, authorization, status) in [
        ("client_id=phone-2", good.clone(), 403),
        ("client_id=phone-1&app=news", good.clone(), 403),
        (
            "client_id=phone-1",
            jwt(&said("phone-1", now - 60), secret),
            401,
        ),
        (
            "client_id=phone-1",
            jwt(&said("phone-1", now + 60), &[b'x'; 32]),
            401,
        ),
        (
            "client_id=stolen",
            jwt(&said("stolen", now + 60), secret),
            403,
        ),
        ("client_id=phone-1", format!("{good}x"), 401),
        (
            "client_id=phone-1",
            basic("shop", "correct horse battery"),
            401,
        ),
    ] {
        let refused = ask(&mut http, query, &authorization);
        assert!(
            refused.status == status || (query == "client_id=stolen" && refused.status == 401),
            "{query}: {}",
            refused.status
        );
    }
}
