//! What `-v` shows: each exchange as it went over the wire, decoded. What must stay secret is not
//! known here but for signatures, of which only the beginning is shown.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use log::{Level, debug, log_enabled};
use serde_json::Value;
use ureq::Error;
use ureq::http::response::Parts;
use ureq::http::{HeaderMap, Request, Uri};

/// Where a line is folded, and how far everything below the first line is indented, in columns.
const WIDTH: usize = 120;
const INDENT: usize = 8;
/// How much of a body is shown, in bytes: enough for an order of a thousand names.
const MAX_BODY: usize = 256 << 10;
/// How much of a signature is shown.
const MAX_SIGNATURE: usize = 8;
/// The headers of a reply that mean something to the conversation; `-vv` shows all.
const TELLING: [&str; 2] = ["location", "retry-after"];

/// How many exchanges there were. Several are under way at a time, so each has a number.
static COUNT: AtomicUsize = AtomicUsize::new(0);
/// What the CA has called the URLs that it told.
static NAMES: Mutex<BTreeMap<String, String>> = Mutex::new(BTreeMap::new());

/// An exchange whose request has been shown.
pub struct Exchange {
    number: usize,
    url: String,
    name: String,
    began: Instant,
}

impl Exchange {
    /// Shows a request to the CA, and its body where that is a JWS. None: nobody wants to see it.
    pub fn with_the_ca<T>(request: &Request<T>, body: &str) -> Option<Exchange> {
        if !log_enabled!(Level::Debug) {
            return None;
        }
        let jws: Value = serde_json::from_str(body).unwrap_or_default();
        let part = |name: &str| {
            let bytes = BASE64_URL_SAFE_NO_PAD.decode(jws[name].as_str().unwrap_or_default());
            String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned()
        };
        let (protected, payload) = (json_of(part("protected").as_bytes()), part("payload"));
        let url = request.uri().to_string();
        let mut method = request.method().as_str();
        let signer = match protected["kid"].as_str() {
            Some(kid) => format!("signed by kid {kid}"),
            None => "signed by jwk, the public half of the account key".to_owned(),
        };
        let mut below = vec![url.clone()];
        below.extend(jws.is_object().then_some(signer));
        if log_enabled!(Level::Trace) {
            below.extend(headers(request.headers(), |_| true));
            if jws.is_object() {
                below.push(format!("protected: {protected:#}"));
                below.push(format!("signature: {}", beginning(&jws["signature"])));
            }
        }
        match payload.is_empty() {
            true if jws.is_object() => method = "POST-as-GET",
            true => {}
            false => below.push(readable(payload.as_bytes())),
        }
        Some(Exchange::begin(url, method, below))
    }

    /// Shows a request of the local check.
    pub fn with_the_web_server(url: &Uri) -> Option<Exchange> {
        let name = "challenge file (local check)".to_owned();
        log_enabled!(Level::Debug).then(|| {
            names().insert(url.to_string(), name);
            Exchange::begin(url.to_string(), "GET", vec![url.to_string()])
        })
    }

    fn begin(url: String, method: &str, below: Vec<String>) -> Exchange {
        let names = names();
        let is_of = |known: &&String| {
            let rest = url.strip_prefix(known.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let known = names.keys().rev().find(is_of);
        let unknown = if names.is_empty() {
            "directory"
        } else {
            "object"
        };
        let name = known.map_or(unknown, |known| &names[known]);
        let name = name.escape_debug().to_string();
        let number = COUNT.fetch_add(1, Relaxed) + 1;
        show(format!("{number:>3} --> {method} {name}"), &below);
        Exchange {
            number,
            url,
            name,
            began: Instant::now(),
        }
    }

    /// Shows the reply, and learns from it what its URLs are called; or that there was none.
    pub fn end(self, reply: Result<(&Parts, &[u8]), &Error>) {
        let (number, name, took) = (self.number, &self.name, self.began.elapsed().as_millis());
        let (parts, body) = match reply {
            Ok(reply) => reply,
            Err(error) => {
                let line = format!("{number:>3} <-- no reply for {name}, {took} ms");
                return show(line, &[error.to_string()]);
            }
        };
        let is_told = |name: &str| log_enabled!(Level::Trace) || TELLING.contains(&name);
        let mut below = headers(&parts.headers, is_told);
        if !body.is_empty() {
            below.push(readable(body));
        }
        let status = parts.status;
        let line = format!("{number:>3} <-- {status} for {name}, {took} ms");
        show(line, &below);

        let (json, mut names) = (json_of(body), names());
        let identifier = json["identifier"]["value"].as_str();
        let of = identifier.map_or(String::new(), |identifier| format!(" of {identifier}"));
        learn(&mut names, "", &of, &json);
        if !of.is_empty() {
            names.insert(self.url, format!("authorization{of}"));
        }
        let made = self.name.strip_prefix("new").map(str::to_lowercase);
        let location = parts.headers.get("Location");
        if let (Some(made), Some(Ok(url))) = (made, location.map(|url| url.to_str())) {
            names.insert(url.to_owned(), made);
        }
    }
}

fn names() -> MutexGuard<'static, BTreeMap<String, String>> {
    NAMES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Names each URL in `json` after its member; `url` is what a challenge calls its own.
fn learn(names: &mut BTreeMap<String, String>, member: &str, of: &str, json: &Value) {
    match json {
        Value::Object(members) => {
            for (member, json) in members {
                let is_own = member == "url";
                learn(names, if is_own { "challenge" } else { member }, of, json);
            }
        }
        Value::Array(items) => {
            let member = member.trim_end_matches('s');
            items.iter().for_each(|item| learn(names, member, of, item));
        }
        Value::String(url) if url.starts_with("https://") => {
            names.entry(url.clone()).or_insert(format!("{member}{of}"));
        }
        _ => {}
    }
}

fn headers(headers: &HeaderMap, is_told: impl Fn(&str) -> bool) -> Vec<String> {
    let told = headers.iter().filter(|(name, _)| is_told(name.as_str()));
    told.map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())))
        .collect()
}

fn json_of(body: &[u8]) -> Value {
    serde_json::from_slice(body).unwrap_or_default()
}

/// JSON over several lines, and anything else as it is; of what is absurdly long the beginning.
fn readable(body: &[u8]) -> String {
    let (body, rest) = body.split_at(body.len().min(MAX_BODY));
    let Ok(mut json) = serde_json::from_slice::<Value>(body) else {
        let text = String::from_utf8_lossy(body);
        return match rest.len() {
            0 => text.into_owned(),
            more => format!("{text}\n({more} bytes more)"),
        };
    };
    if let Some(signature) = json.pointer_mut("/externalAccountBinding/signature") {
        *signature = Value::from(beginning(signature));
    }
    format!("{json:#}")
}

fn beginning(signature: &Value) -> String {
    let signature = signature.as_str().unwrap_or_default();
    let shown: String = signature.chars().take(MAX_SIGNATURE).collect();
    format!("{shown}...")
}

/// One record for the logger, so that what belongs together is printed together.
fn show(mut text: String, below: &[String]) {
    for line in below.iter().flat_map(|text| text.lines()) {
        let line: Vec<char> = line.chars().collect();
        let deeper = line
            .iter()
            .take_while(|c| **c == ' ')
            .count()
            .min(WIDTH / 2)
            + 2;
        let (mut rest, mut indent) = (&line[..], INDENT);
        loop {
            let (now, later) = rest.split_at(rest.len().min(WIDTH.saturating_sub(indent).max(20)));
            text += &format!("\n{:indent$}{}", "", now.iter().collect::<String>());
            (rest, indent) = (later, INDENT + deeper);
            if rest.is_empty() {
                break;
            }
        }
    }
    debug!("{text}");
}
