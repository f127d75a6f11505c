//! `stillwire passwd`, `key` and `token`: what an operator gives out.

use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::time::{SystemTime, UNIX_EPOCH};

use stillwire::access::{Claims, Keys, keys, passwords};
use stillwire::limits;
use stillwire::sys::terminal;

use crate::cli::{Key, Passwd, Token};
use crate::exit::Failure;

/// Sets the password of a user; says what was done.
pub(crate) fn passwd(given: &Passwd) -> Result<String, Failure> {
    let app = given.app.as_deref().unwrap_or_default();
    passwords::check_names(&given.user, app).map_err(|error| Failure::Usage(error.to_string()))?;
    let password = password().map_err(Failure::Input)?;
    if password.is_empty() {
        return Err(Failure::Usage("a password is not empty".to_owned()));
    }
    let was_there = passwords::set(&given.file, &given.user, app, &password)?;
    let done = if was_there { "changed" } else { "added" };
    Ok(format!("{done} {}\n", given.user))
}

/// Asked for twice at a terminal; otherwise the first line of standard input.
fn password() -> io::Result<Vec<u8>> {
    let mut input = io::stdin().lock();
    if !input.is_terminal() {
        let mut line = Vec::new();
        let max = limits::PASSWORD_BYTES as u64;
        (&mut input).take(max + 2).read_to_end(&mut line)?;
        line.truncate(
            line.iter()
                .position(|&byte| byte == b'\n')
                .unwrap_or(line.len()),
        );
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        if line.len() > limits::PASSWORD_BYTES {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        return Ok(line);
    }
    let ask = |prompt: &str| {
        let mut out = io::stderr().lock();
        write!(out, "{prompt}")?;
        out.flush()?;
        let line = terminal::read_hidden(&input, limits::PASSWORD_BYTES);
        writeln!(out)?;
        line
    };
    let first = ask("Password: ")?;
    if ask("The same again: ")? != first {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the two differ",
        ));
    }
    Ok(first)
}

/// Adds a key that signs; says which.
pub(crate) fn key(given: &Key) -> Result<String, Failure> {
    let id = Keys::add(&given.file, given.id.as_deref())?;
    Ok(format!("added {id}, which signs from now on\n"))
}

/// Signs a ticket.
pub(crate) fn token(given: &Token) -> Result<String, Failure> {
    let app = given.app.clone();
    if app
        .as_deref()
        .is_some_and(|app| !stillwire::access::is_tenant(app))
    {
        return Err(Failure::Usage(passwords::NameError::App.to_string()));
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = since.unwrap_or_default().as_secs();
    let claims = Claims {
        sub: given.client_id.clone(),
        app,
        exp: now.saturating_add(given.ttl),
        iat: Some(now),
        jti: Some(keys::token_id()?),
        ..Claims::default()
    };
    let token = Keys::read(&given.keys)?
        .sign(&claims)
        .map_err(|error| Failure::Usage(format!("{}: {error}", given.keys.display())))?;
    Ok(token + "\n")
}
