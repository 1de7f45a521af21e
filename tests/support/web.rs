//! A web server that serves an acme-dir, and remembers what it was asked for.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use super::server::TcpServer;
use super::{free_port, has_ipv6};

/// What a web server was asked, and what it had.
#[derive(Clone, Debug)]
pub struct Request {
    pub path: String,
    pub user_agent: String,
    pub host: String,
    /// Content and mode of the file at that moment.
    pub file: Option<(Vec<u8>, u32)>,
}

impl Request {
    /// Whether getcrt's self-check sent it, and not the CA.
    pub fn is_from_getcrt(&self) -> bool {
        self.user_agent.starts_with("getcrt/")
    }
}

/// What it answers instead of the file, if anything: a whole HTTP response, or nothing at all.
pub type Answer = Box<dyn Fn(&Request) -> Option<Vec<u8>> + Send + Sync>;

/// A server on loopback, IPv4 and IPv6.
pub struct Web {
    pub port: u16,
    requests: Arc<Mutex<Vec<Request>>>,
    _servers: Vec<TcpServer>,
}

impl Web {
    /// Serves the files in `directory` as those of the challenges.
    pub fn serving(directory: &Path) -> Web {
        Web::answering(directory, Box::new(|_| None))
    }

    /// Serves them where `answer` has no answer of its own.
    pub fn answering(directory: &Path, answer: Answer) -> Web {
        let port = free_port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let answer = Arc::new(answer);
        let addresses: &[&'static str] = if has_ipv6() {
            &["127.0.0.1", "::1"]
        } else {
            &["127.0.0.1"]
        };
        let mut servers = Vec::new();
        for address in addresses {
            let (directory, requests, answer) = (
                directory.to_owned(),
                Arc::clone(&requests),
                Arc::clone(&answer),
            );
            let handle =
                move |connection: TcpStream| serve(&connection, &directory, &requests, &answer);
            servers.push(TcpServer::start(address, port, handle));
        }
        Web {
            port,
            requests,
            _servers: servers,
        }
    }

    /// Another program at that port, whose requests are not known here.
    pub fn elsewhere(port: u16) -> Web {
        Web {
            port,
            requests: Arc::default(),
            _servers: Vec::new(),
        }
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// The requests of the CA alone, without getcrt's own.
    pub fn of_the_ca(&self) -> Vec<Request> {
        self.requests()
            .into_iter()
            .filter(|request| !request.is_from_getcrt())
            .collect()
    }
}

fn serve(
    connection: &TcpStream,
    directory: &Path,
    requests: &Mutex<Vec<Request>>,
    answer: &Answer,
) {
    let mut lines = BufReader::new(connection).lines().map_while(Result::ok);
    let Some(first) = lines.next() else {
        let _ = (&*connection).write_all(&response("400 Bad Request", b"no HTTP"));
        return;
    };
    let headers: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    let header = |name: &str| {
        let named = |line: &&String| line.to_ascii_lowercase().starts_with(name);
        headers
            .iter()
            .find(named)
            .map_or_else(String::new, |line| line[name.len()..].trim().to_owned())
    };
    let (user_agent, host) = (header("user-agent:"), header("host:"));
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let file = path
        .strip_prefix("/.well-known/acme-challenge/")
        .filter(|token| !token.contains('/'));
    let file: Option<PathBuf> = file.map(|token| directory.join(token));
    let file = file.and_then(|file| {
        let mode = fs::metadata(&file).ok()?.permissions().mode() & 0o777;
        Some((fs::read(&file).ok()?, mode))
    });
    let request = Request {
        path,
        user_agent,
        host,
        file,
    };
    requests.lock().unwrap().push(request.clone());
    let reply = answer(&request).unwrap_or_else(|| match &request.file {
        Some((content, _)) => response("200 OK", content),
        None => response("404 Not Found", b"no such file\n"),
    });
    let mut connection = connection;
    let _ = connection.write_all(&reply);
}

/// A whole HTTP response; `status` may have headers behind it.
pub fn response(status: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// An http proxy that makes tunnels, and counts them.
pub struct Proxy {
    pub port: u16,
    count: Arc<AtomicUsize>,
    _server: TcpServer,
}

impl Proxy {
    pub fn start() -> Proxy {
        let port = free_port();
        let count = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&count);
        Proxy {
            port,
            count,
            _server: TcpServer::start("127.0.0.1", port, move |client| tunnel(client, &counter)),
        }
    }

    pub fn requests(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
}

fn tunnel(mut client: TcpStream, counter: &AtomicUsize) {
    let mut lines = BufReader::new(client.try_clone().unwrap())
        .lines()
        .map_while(Result::ok);
    let first = lines.next().unwrap_or_default();
    lines.find(|line| line.is_empty());
    let Some(target) = first
        .strip_prefix("CONNECT ")
        .and_then(|rest| rest.split(' ').next())
    else {
        return;
    };
    counter.fetch_add(1, Ordering::Relaxed);
    let Ok(server) = TcpStream::connect(target) else {
        return;
    };
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
    let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    thread::spawn(move || std::io::copy(&mut from, &mut to));
    let _ = std::io::copy(&mut &server, &mut client);
}
