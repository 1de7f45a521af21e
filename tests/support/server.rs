//! A TCP server in threads of the test process.

use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use super::listen;

/// A server that handles each connection in a thread of its own. Dropped, it accepts no more, and its port is free
/// again.
pub struct TcpServer {
    address: &'static str,
    port: u16,
    is_over: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

impl TcpServer {
    /// Listens at this address.
    pub fn start(
        address: &'static str,
        port: u16,
        handle: impl Fn(TcpStream) + Send + Sync + 'static,
    ) -> TcpServer {
        let listener: TcpListener = listen(address, port);
        let is_over = Arc::new(AtomicBool::new(false));
        let handle = Arc::new(handle);
        let is_over_there = Arc::clone(&is_over);
        let accept = move || {
            for connection in listener.incoming().flatten() {
                if is_over_there.load(Ordering::Relaxed) {
                    break;
                }
                let handle = Arc::clone(&handle);
                thread::spawn(move || handle(connection));
            }
        };
        TcpServer {
            address,
            port,
            is_over,
            accepting: Some(thread::spawn(accept)),
        }
    }
}

impl Drop for TcpServer {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        // A last connection wakes the thread up.
        let is_awake = TcpStream::connect((self.address, self.port)).is_ok();
        if let Some(thread) = self.accepting.take()
            && is_awake
        {
            let _ = thread.join();
        }
    }
}
