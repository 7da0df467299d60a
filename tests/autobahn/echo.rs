//! An echo behind the real listener, head and session, for suites that test the protocol itself.
//!
//! `echo --listen ADDR:PORT` prints the line `listening on http://…` and runs until it is killed. It stands where the
//! hub stands: it alone writes to the sockets, and may block on them, as its peers read.

use std::collections::HashMap;
use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;

use adda::auth::credential::SessionCookie;
use adda::authenticator::Authenticator;
use adda::config::{Data, Durability, Keep};
use adda::front::listener::{self, Front, Listening};
use adda::front::relay::Relay;
use adda::hub::{Command, HubApi, Inbound, Sink, channel, new_presence};
use adda::limits::Limits;
use adda::metrics::Metrics;
use adda::model::ConnectionId;
use adda::rate::RateLimiters;
use adda::session::{Context, Decoder};
use adda::wire::websocket;
use adda::{http, store};

/// Gives every message back as the frame that it was.
struct Echo;

impl Decoder for Echo {
    fn text(&mut self, text: &str) -> Inbound {
        let mut bytes = Vec::new();
        websocket::append_text(&mut bytes, text.as_bytes());
        Inbound::Control(bytes)
    }

    fn binary(&mut self, message: &[u8]) -> Inbound {
        let mut bytes = Vec::new();
        websocket::append_binary(&mut bytes, message);
        Inbound::Control(bytes)
    }

    fn control(&mut self) -> Option<Inbound> {
        None
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let address: SocketAddr = match (args.next().as_deref(), args.next()) {
        (Some("--listen"), Some(address)) => address.parse()?,
        _ => return Err("usage: echo --listen ADDR:PORT".into()),
    };
    let metrics = Arc::new(Metrics::default());
    let (commands, queue) = channel();
    let policy = store::change::Policy::default();
    let (keep, hub) = (Keep::default(), &queue.sleeper);
    let started = store::start(&Data::Memory, Durability::Normal, keep, policy, hub, Arc::clone(&metrics))?;
    let api = HubApi::new(commands.clone(), new_presence());
    // The suite opens its connections one upon the other.
    let limits = Limits { handshakes_per_s: 0, ..Limits::default() };
    let rate_limiters = Arc::new(RateLimiters::new(&limits));
    let cookie = Arc::new(SessionCookie::new("echo", 0));
    let settings = http::Settings {
        origins: Vec::new(),
        directory: None,
        rate_limiters: Arc::clone(&rate_limiters),
        cookie: Arc::clone(&cookie),
        limits,
    };
    let http = http::Server::start(api, started.reader.clone(), settings, Arc::clone(&metrics))?;
    let relay = Relay::new(http.endpoint(), Arc::clone(&metrics));
    let sessions = Context {
        commands,
        decoder: |_, _| Box::new(Echo),
        authenticator: Authenticator::start(started.reader)?,
        origins: Vec::new(),
        rate_limiters,
        cookie,
        limits,
        metrics,
    };
    let socket = listener::open(address)?;
    println!("listening on http://{}", socket.local_addr()?);
    let front = Front { sessions, relay, proxies: Vec::new(), connections_max: 100, per_address_max: 0 };
    let _listening = Listening::start(socket, front)?;

    let mut sockets: HashMap<ConnectionId, Arc<TcpStream>> = HashMap::new();
    for command in queue.commands {
        match command {
            Command::Connect(connect) => {
                let Sink::Socket(socket) = connect.sink else { unreachable!("a session hands over its socket") };
                sockets.insert(connect.arrival.connection, socket);
            }
            Command::Frames { from, frames } => {
                for frame in frames {
                    // A peer that is gone is gone from the table when its session has seen it.
                    let Some(mut socket) = sockets.get(&from).map(|socket| &**socket) else {
                        continue;
                    };
                    match frame {
                        Inbound::Control(bytes) => drop(socket.write_all(&bytes)),
                        Inbound::Close(reason) => {
                            let _ = socket.write_all(&websocket::close_frame(reason));
                            let _ = socket.shutdown(Shutdown::Write);
                        }
                        // Its close frame is answered by the protocol.
                        Inbound::Closed { .. } => {}
                        Inbound::Frame(_) | Inbound::Limited(..) | Inbound::Rejected(_) => {
                            unreachable!("the echo decodes no commands")
                        }
                    }
                }
            }
            Command::Gone { from } => drop(sockets.remove(&from)),
            Command::SendMessage { .. } | Command::Change { .. } | Command::Ping { .. } | Command::Stop => {}
        }
    }
    Ok(())
}
