//! Whether an answer is what the lookup's OpenAPI document promises. As much of JSON Schema as that document uses; another keyword is a failure.

use serde_json::Value;

/// The document, as the server has it.
pub fn document() -> Value {
    serde_json::from_str(include_str!("../../../src/lookup/openapi.json")).expect("JSON")
}

/// Checks an answer: its status, its headers, its body.
pub fn check(
    method: &str,
    path: &str,
    status: u16,
    header: impl Fn(&str) -> Option<String>,
    body: &[u8],
) {
    let document = document();
    let operation = &document["paths"][path][method.to_ascii_lowercase()];
    assert!(
        operation.is_object(),
        "{method} {path} is not in the document"
    );
    let response = follow(&document, &operation["responses"][status.to_string()]);
    assert!(
        response.is_object(),
        "{method} {path} answers {status}, which the document does not know: {}",
        String::from_utf8_lossy(body)
    );
    for (name, about) in response["headers"].as_object().into_iter().flatten() {
        assert!(
            about["required"] != Value::Bool(true) || header(name).is_some(),
            "{method} {path}: {status} without {name}"
        );
    }
    let schema = &response["content"]["application/json"]["schema"];
    if schema.is_null() {
        assert!(body.is_empty(), "{status} has a body");
        return;
    }
    assert_eq!(header("content-type").as_deref(), Some("application/json"));
    let body: Value = serde_json::from_slice(body).expect("a body of JSON");
    if let Err(what) = conforms(&document, schema, &body) {
        panic!("{method} {path}: {status}: {what}: {body}");
    }
}

/// A part of the document, or what it refers to.
fn follow<'a>(document: &'a Value, part: &'a Value) -> &'a Value {
    match part["$ref"].as_str() {
        Some(name) => document
            .pointer(name.trim_start_matches('#'))
            .unwrap_or_else(|| panic!("{name} is not there")),
        None => part,
    }
}

fn conforms(document: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    let schema = follow(document, schema);
    let number = || {
        value
            .as_f64()
            .ok_or_else(|| format!("{value} is no number"))
    };
    let length = value.as_str().map_or(0, |text| text.chars().count()) as u64;
    for (keyword, wanted) in schema.as_object().into_iter().flatten() {
        let is_fine = match keyword.as_str() {
            "type" => {
                let any = wanted
                    .as_array()
                    .map_or(std::slice::from_ref(wanted), Vec::as_slice);
                any.iter()
                    .any(|name| has_type(value, name.as_str().unwrap()))
            }
            "const" => value == wanted,
            "enum" => wanted.as_array().unwrap().contains(value),
            "minimum" => number()? >= wanted.as_f64().unwrap(),
            "maximum" => number()? <= wanted.as_f64().unwrap(),
            "minLength" => length >= wanted.as_u64().unwrap(),
            "maxLength" => length <= wanted.as_u64().unwrap(),
            "minItems" => value
                .as_array()
                .is_none_or(|all| all.len() as u64 >= wanted.as_u64().unwrap()),
            "maxItems" => value
                .as_array()
                .is_none_or(|all| all.len() as u64 <= wanted.as_u64().unwrap()),
            "format" => {
                let text = value.as_str().unwrap_or_default();
                match wanted.as_str().unwrap() {
                    "ipv4" => text.parse::<std::net::Ipv4Addr>().is_ok(),
                    "ipv6" => text.parse::<std::net::Ipv6Addr>().is_ok(),
                    other => panic!("an unknown format: {other}"),
                }
            }
            "pattern" => {
                // There is one in an answer: the name of a node.
                assert_eq!(wanted, "^[A-Za-z0-9._-]{1,64}$");
                let name = value.as_str().unwrap_or_default();
                let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
                (1..=64).contains(&name.len()) && name.bytes().all(letter)
            }
            "anyOf" => {
                let any = wanted.as_array().unwrap();
                any.iter()
                    .any(|schema| conforms(document, schema, value).is_ok())
            }
            "items" => {
                for item in value.as_array().into_iter().flatten() {
                    conforms(document, wanted, item)?;
                }
                true
            }
            "required" => {
                let names = wanted.as_array().unwrap();
                names.iter().all(|name| {
                    !value[name.as_str().unwrap()].is_null()
                        || value.get(name.as_str().unwrap()).is_some()
                })
            }
            "properties" => {
                for (name, schema) in wanted.as_object().unwrap() {
                    if let Some(value) = value.get(name) {
                        conforms(document, schema, value)
                            .map_err(|what| format!("{name}: {what}"))?;
                    }
                }
                true
            }
            "additionalProperties" => {
                assert_eq!(wanted, &Value::Bool(false));
                let known = &schema["properties"];
                value
                    .as_object()
                    .into_iter()
                    .flatten()
                    .all(|(name, _)| known.get(name).is_some())
            }
            "description" => true,
            other => panic!("an unknown keyword: {other}"),
        };
        if !is_fine {
            return Err(format!("{value} against {keyword} {wanted}"));
        }
    }
    Ok(())
}

fn has_type(value: &Value, name: &str) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("an unknown type: {other}"),
    }
}

#[test]
fn what_does_not_conform_is_found() {
    let document = document();
    let endpoint = |text: &str| {
        let schema = &document["components"]["schemas"]["Endpoint"];
        conforms(&document, schema, &serde_json::from_str(text).unwrap())
    };
    let good = r#"{"proto":"mqtt","host":"h","ip":"::1","port":1,"tls":false,"path":null,"priority":0,"weight":1,"home":true}"#;
    endpoint(good).unwrap();
    for (part, instead) in [
        ("\"mqtt\"", "\"http\""),
        ("\"::1\"", "\"example.org\""),
        ("\"port\":1", "\"port\":0"),
        ("\"port\":1", "\"port\":1.5"),
        ("null", "3"),
        ("\"home\":true", "\"home\":true,\"more\":1"),
        (",\"home\":true", ""),
    ] {
        assert!(endpoint(&good.replace(part, instead)).is_err(), "{instead}");
    }
}
