//! The hub's thread, with a store in memory and sockets of our own.

use std::io::Read;
use std::net::{Ipv4Addr, TcpListener};

use super::*;
use crate::config::{Data, Durability};
use crate::model::{ROOM_DEFAULT, Username};
use crate::protocol::Replay;
use crate::store::accounts::{RoomSettings, SessionKey};

/// A connection's far end, and how it comes.
fn arrival(connection: u64, asked_at: Instant) -> (TcpStream, Connect) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    far.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let connect = Connect {
        connection: ConnectionId(connection),
        socket: Arc::new(listener.accept().unwrap().0),
        person: Person { id: UserId(uuid::Uuid::from_u128(1)), username: Username::parse("ana").unwrap() },
        role: Role::Guest,
        session: Some(SessionKey(7)),
        network: Ipv4Addr::LOCALHOST.into(),
        room: RoomId::parse(ROOM_DEFAULT).unwrap(),
        replay: Replay { history: 0, after: None },
        newcomer: None,
        asked_at,
    };
    (far, connect)
}

#[test]
fn who_was_looked_up_before_an_order_came_meets_it_all_the_same() {
    let (commands, commanded) = channel();
    let store = crate::store::start(&Data::Memory, Durability::Normal, Keep::default(), Arc::default()).unwrap();
    let (errands, _unrun) = bounded(1);
    let ends = Ends { commands: commanded, store: store.writer, errands };
    let hub = start(ends, store.reader, Rules::default(), Keep::default(), Limits::default(), Arc::default()).unwrap();

    let user = UserId(uuid::Uuid::from_u128(1));
    let orders =
        [Order::EndUser(user), Order::EndSessions(vec![SessionKey(7)]), Order::EndGuests(Ipv4Addr::LOCALHOST.into())];
    for (number, order) in orders.into_iter().enumerate() {
        let number = number as u64;
        let looked_up_before = Instant::now();
        commands.send(Command::Order(order)).unwrap();
        let (mut far, connect) = arrival(2 * number, looked_up_before);
        commands.send(Command::Connect(Box::new(connect))).unwrap();
        let mut got = Vec::new();
        far.read_to_end(&mut got).unwrap();
        assert_eq!(got, crate::ws::close_frame(CloseReason::ENDED), "{number}");

        // The hub has carried out the order when it answers this.
        let (answer, answered) = bounded(1);
        commands.send(Command::NetworksOf { user, answer }).unwrap();
        answered.recv().unwrap();
        let (mut far, connect) = arrival(2 * number + 1, Instant::now());
        commands.send(Command::Connect(Box::new(connect))).unwrap();
        let mut first = [0; 2];
        far.read_exact(&mut first).unwrap();
        assert_eq!(first[0], 0x81, "whoever was looked up since is welcome");
        commands.send(Command::Gone { from: ConnectionId(2 * number + 1) }).unwrap();
    }

    // A room that has become private lets in nobody who was looked up when it was not.
    let (room, by) = (RoomId::parse(ROOM_DEFAULT).unwrap(), arrival(100, Instant::now()).1.person);
    let settings = RoomSettings { is_private: true, ..RoomSettings::default() };
    commands.send(Command::Order(Order::SetRoom { room, settings, by })).unwrap();
    let (mut far, connect) = arrival(101, Instant::now());
    commands.send(Command::Connect(Box::new(connect))).unwrap();
    let mut got = Vec::new();
    far.read_to_end(&mut got).unwrap();
    assert_eq!(got, crate::ws::close_frame(CloseReason::ENDED));
    commands.send(Command::Stop).unwrap();
    hub.into_iter().for_each(|thread| thread.join().unwrap());
}
