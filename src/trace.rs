//! What `-v` and `-vv` show of a run: each exchange with the CA and with the web server, decoded. The
//! signatures of requests are never shown in full.

use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use log::{Level, log_enabled};
use serde_json::Value;
use ureq::http::header::LOCATION;
use ureq::http::{HeaderMap, Request, StatusCode, Uri};

use crate::acme::account_key::Jws;
use crate::acme::response::Response;
use crate::stderr::{Heading, show_exchange};
use crate::text::{beginning, without_credentials};

/// Where lines are folded, in columns.
const LINE_WIDTH: usize = 120;
/// The indentation of everything below the first line, in columns.
const INDENT: usize = 8;
/// How much of a body from the CA is shown, in characters: enough for an order of a thousand names.
const MAX_BODY_CHARS: usize = 256 << 10;
/// How much of a body from the web server is shown, in characters.
pub const MAX_WEB_BODY_CHARS: usize = 60;
/// How much of a `Location` is shown, in characters, and of a URL that comes from one.
pub const MAX_LOCATION_CHARS: usize = 200;
/// How much of a signature is shown, in characters.
const SIGNATURE_CHARS: usize = 8;
/// The response headers that `-v` shows; `-vv` shows them all.
const NOTABLE_HEADERS: [&str; 2] = ["location", "retry-after"];

/// An exchange whose request was shown and whose response is awaited.
pub struct Exchange {
    /// Several exchanges are under way at a time; the number tells which response answers which request.
    number: usize,
    purpose: String,
    server: Server,
    started: Instant,
}

/// Who sends the response, which decides how much of it is shown.
#[derive(Clone, Copy)]
pub enum Server {
    /// The CA. All of the response is shown.
    Ca,
    /// The web server of a name. The beginning of the body is shown.
    Web,
    /// Another host to which a web server has redirected. Nothing but the status and the Location is shown: it may be
    /// one that only this machine can reach.
    OtherHost,
}

impl Exchange {
    /// Shows a request to the CA. Returns `None` without `-v`.
    pub fn with_the_ca<T>(
        purpose: impl Display,
        request: &Request<T>,
        jws: Option<&Jws>,
    ) -> Option<Exchange> {
        if !log_enabled!(Level::Debug) {
            return None;
        }
        let is_full = log_enabled!(Level::Trace);
        let mut lines = vec![request.uri().to_string()];
        lines.extend(jws.map(signer));
        if is_full {
            lines.extend(header_lines(request.headers(), |_| true));
        }
        if let Some(jws) = jws {
            if is_full {
                lines.push(format!("protected: {:#}", jws.protected));
                lines.push(format!("signature: {}", cut_signature(&jws.signature)));
            }
            if !jws.payload.is_empty() {
                lines.push(readable(jws.payload.as_bytes()));
            }
        }
        let method = match jws {
            // RFC 8555 §6.3.
            Some(jws) if jws.payload.is_empty() => "POST-as-GET",
            _ => request.method().as_str(),
        };
        Some(Exchange::begin(
            method,
            purpose.to_string(),
            Server::Ca,
            &lines,
        ))
    }

    /// Shows a request of the self-check to `server`, which is at `address`. Returns `None` without `-v`.
    pub fn of_the_self_check(server: Server, uri: &Uri, address: SocketAddr) -> Option<Exchange> {
        if !log_enabled!(Level::Debug) {
            return None;
        }
        let purpose = "challenge file (local check)".to_owned();
        let shown_uri = beginning(&without_credentials(&uri.to_string()), MAX_LOCATION_CHARS);
        let place = format!("at {}", address.ip());
        Some(Exchange::begin("GET", purpose, server, &[shown_uri, place]))
    }

    fn begin(method: &str, purpose: String, server: Server, lines: &[String]) -> Exchange {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Relaxed) + 1;
        let first_line = format!("{number:>3} --> {method} {purpose}");
        show_exchange(Heading::Request, first_line, fold_and_indent(lines));
        Exchange {
            number,
            purpose,
            server,
            started: Instant::now(),
        }
    }

    /// Shows the response, or that there was none.
    pub fn end(self, result: Result<&Response, &ureq::Error>) {
        let milliseconds = self.started.elapsed().as_millis();
        let end_of_line = format!("for {}, {milliseconds} ms", self.purpose);
        let number = self.number;
        match result {
            Ok(response) => {
                let lines = self.response_lines(response);
                let is_success = response.status < 400;
                let heading = if is_success {
                    Heading::Response
                } else {
                    Heading::ErrorResponse
                };
                let status = status_text(response.status);
                let first_line = format!("{number:>3} <-- {status} {end_of_line}");
                show_exchange(heading, first_line, fold_and_indent(&lines));
            }
            Err(error) => {
                let first_line = format!("{number:>3} <-- no reply {end_of_line}");
                // It may quote a URL.
                let text = match self.server {
                    Server::Ca => error.to_string(),
                    Server::Web | Server::OtherHost => {
                        beginning(&error.to_string(), MAX_LOCATION_CHARS)
                    }
                };
                let lines = fold_and_indent(&[text]);
                show_exchange(Heading::ErrorResponse, first_line, lines);
            }
        }
    }

    /// Returns as much of a response as is shown from this server.
    fn response_lines(&self, response: &Response) -> Vec<String> {
        let is_other_host = matches!(self.server, Server::OtherHost);
        let shows_all = log_enabled!(Level::Trace) && !is_other_host;
        let mut lines = header_lines(&response.headers, |name| {
            shows_all || NOTABLE_HEADERS.contains(&name)
        });
        if response.body.is_empty() {
            return lines;
        }
        lines.push(match self.server {
            Server::Ca => readable(&response.body),
            Server::Web => beginning(&String::from_utf8_lossy(&response.body), MAX_WEB_BODY_CHARS),
            Server::OtherHost => "(a body from another host is not shown)".to_owned(),
        });
        lines
    }
}

/// Says how a request identifies its signer (RFC 8555 §6.2).
fn signer(jws: &Jws) -> String {
    match jws.protected["kid"].as_str() {
        Some(kid) => format!("signed by kid {kid}"),
        None => "signed by jwk, the public half of the account key".to_owned(),
    }
}

/// Returns a status with its name, such as `404 Not Found`.
fn status_text(status: u16) -> String {
    match StatusCode::from_u16(status) {
        Ok(code) => code.to_string(),
        Err(_) => status.to_string(),
    }
}

fn header_lines(headers: &HeaderMap, is_shown: impl Fn(&str) -> bool) -> Vec<String> {
    let mut lines = Vec::new();
    for (name, value) in headers {
        if is_shown(name.as_str()) {
            let mut text = String::from_utf8_lossy(value.as_bytes()).into_owned();
            if name == LOCATION {
                text = beginning(&without_credentials(&text), MAX_LOCATION_CHARS);
            }
            lines.push(format!("{name}: {text}"));
        }
    }
    lines
}

/// Returns a body as a person reads it: JSON over several lines, anything else as it is, and only the
/// beginning of what is very long.
fn readable(body: &[u8]) -> String {
    let text = match serde_json::from_slice::<Value>(body) {
        Ok(mut json) => {
            if let Some(signature) = json.pointer_mut("/externalAccountBinding/signature") {
                *signature = cut_signature(signature.as_str().unwrap_or_default()).into();
            }
            format!("{json:#}")
        }
        Err(_) => String::from_utf8_lossy(body).into_owned(),
    };
    // The layout can take much more than the body does.
    match text.char_indices().nth(MAX_BODY_CHARS) {
        Some((end, _)) => format!("{}\n({} bytes more)", &text[..end], text.len() - end),
        None => text,
    }
}

fn cut_signature(signature: &str) -> String {
    let shown: String = signature.chars().take(SIGNATURE_CHARS).collect();
    format!("{shown}...")
}

/// Returns the lines of all `texts`, indented and folded.
fn fold_and_indent(texts: &[String]) -> Vec<String> {
    let lines = texts.iter().flat_map(|text| text.lines());
    lines.flat_map(fold_line).collect()
}

/// Indents one line. If it is too long, it is folded into several, which are indented by two columns more than its
/// text. With a width of 20 and an indentation of 4 that would be:
///
/// ```text
///       "csr": "MIHoMI
///         GQAgEAMAAw"
/// ```
fn fold_line(line: &str) -> Vec<String> {
    let own_indent = line.chars().take_while(|c| *c == ' ').count();
    // However deep the line itself is indented, there must be room for text.
    let continuation_indent = INDENT + own_indent.min(LINE_WIDTH / 2) + 2;

    let mut folded = Vec::new();
    let mut rest = line;
    let mut indent = INDENT;
    while let Some((end, _)) = rest.char_indices().nth(LINE_WIDTH - indent) {
        let (part, after) = rest.split_at(end);
        folded.push(format!("{}{part}", " ".repeat(indent)));
        rest = after;
        indent = continuation_indent;
    }
    folded.push(format!("{}{rest}", " ".repeat(indent)));
    folded
}
