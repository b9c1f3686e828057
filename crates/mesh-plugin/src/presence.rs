//! Which clients are connected to which broker: a client that has moved to another broker has no session here any
//! more that matters.
//!
//! Each broker tells its peers of clients that connect to it, with the time of its clock. Who has an older session of
//! the same client id ends it, without its will: a broker that was hung or cut off still believes in the sessions of
//! clients that have long gone elsewhere. A peer whose link comes back is told of all that have connected lately.

use std::collections::{HashMap, HashSet, VecDeque};
use std::rc::Rc;

use crate::policy::ClientKey;
use crate::stamp::Hlc;

/// So many clients that connected here are kept in mind for peers that were away, the latest.
const MOST_RECENT: usize = 20_000;

/// And of so many it is known that they have gone to a peer.
const MOST_ELSEWHERE: usize = 20_000;

/// A message to peers has so many bytes at most, unless a single client id is longer.
const BATCH_BYTES: usize = 32 << 10;

/// A client's session here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The client id.
    pub id: Rc<[u8]>,
    /// When it connected.
    pub since: Hlc,
}

/// The sessions of clients here, and what is known of others.
#[derive(Debug, Default)]
pub struct Presence {
    connected: HashMap<ClientKey, Session>,
    by_id: HashMap<Rc<[u8]>, ClientKey>,
    /// Those that have logged in since the last turn. Whether they were let in shows in the next one.
    arriving: Vec<ClientKey>,
    /// The clients that connected here, and when, in that order.
    recent: VecDeque<Session>,
    /// How many of those peers were not told of yet.
    untold: usize,
    /// Clients that connected to a peer after they had connected here, and when.
    elsewhere: HashMap<Rc<[u8]>, Hlc>,
    /// In the order in which they became known.
    gone: VecDeque<Rc<[u8]>>,
    /// Client ids whose sessions here are to be ended.
    outdated: HashSet<Rc<[u8]>>,
}

impl Presence {
    /// A client has logged in; nothing changes if it is asked about again.
    pub fn login(&mut self, client: ClientKey, id: &[u8], now: impl FnOnce() -> Hlc) {
        if self.connected.get(&client).is_some_and(|known| *known.id == *id) {
            return;
        }
        self.logout(client);
        let id: Rc<[u8]> = id.into();
        let since = now();
        self.elsewhere.remove(&id);
        self.outdated.remove(&id);
        self.by_id.insert(id.clone(), client);
        self.connected.insert(client, Session { id, since });
        self.arriving.push(client);
    }

    /// A connection has ended. Tells what it was.
    pub fn logout(&mut self, client: ClientKey) -> Option<Session> {
        let session = self.connected.remove(&client)?;
        if self.by_id.get(&session.id) == Some(&client) {
            self.by_id.remove(&session.id);
            // There is nothing to be ended any more. Mosquitto 2.0 must not be asked to end a session whose client is
            // away: it would put it on the list of those that expire twice, and use the second entry after its end.
            self.outdated.remove(&session.id);
        }
        Some(session)
    }

    /// How many clients are connected here.
    pub fn connected(&self) -> usize {
        self.connected.len()
    }

    /// Whether this is a client with a session here.
    pub fn is_connected(&self, client: ClientKey) -> bool {
        self.connected.contains_key(&client)
    }

    /// When this client connected, if it has a session here.
    pub fn since(&self, client: ClientKey) -> Option<Hlc> {
        Some(self.connected.get(&client)?.since)
    }

    /// Whether the session here of the client with this id is to be ended.
    pub fn is_outdated(&self, id: &[u8]) -> bool {
        self.outdated.contains(id)
    }

    /// Whether the client with this id has connected to a peer after that time.
    pub fn has_moved(&self, id: &[u8], since: Hlc) -> bool {
        self.elsewhere.get(id).is_some_and(|moved| *moved > since)
    }

    /// Whether any client is known to have moved.
    pub fn any_moved(&self) -> bool {
        !self.elsewhere.is_empty()
    }

    /// Whether there is something to tell peers, or a session to be ended.
    pub fn is_waiting(&self) -> bool {
        !self.arriving.is_empty() || !self.outdated.is_empty()
    }

    /// The broker's loop has turned. Returns what peers are to be told: each a message.
    pub fn turn(&mut self) -> Vec<Vec<u8>> {
        if self.arriving.is_empty() {
            return Vec::new();
        }
        for client in std::mem::take(&mut self.arriving) {
            if let Some(session) = self.connected.get(&client) {
                if self.recent.len() == MOST_RECENT {
                    self.recent.pop_front();
                }
                self.recent.push_back(session.clone());
                self.untold = (self.untold + 1).min(MOST_RECENT);
            }
        }
        let from = self.recent.len() - std::mem::take(&mut self.untold);
        batches(self.recent.range(from..))
    }

    /// All that a peer is to be told which was away: each a message.
    pub fn all_recent(&self) -> Vec<Vec<u8>> {
        batches(self.recent.iter())
    }

    /// A peer has told of clients that have connected to it.
    pub fn told(&mut self, message: &[u8], mut is_believed: impl FnMut(Hlc) -> bool) {
        for (since, id) in sessions(message).filter(|(since, _)| is_believed(*since)) {
            if let Some(client) = self.by_id.get(id) {
                let here = &self.connected[client];
                // In one millisecond a client may have come here from there.
                if here.since.ms() >= since.ms() {
                    continue;
                }
                self.outdated.insert(here.id.clone());
            }
            self.move_away(id, since);
        }
    }

    fn move_away(&mut self, id: &[u8], since: Hlc) {
        if let Some(known) = self.elsewhere.get_mut(id) {
            *known = since.max(*known);
            return;
        }
        if self.gone.len() == MOST_ELSEWHERE
            && let Some(oldest) = self.gone.pop_front()
        {
            self.elsewhere.remove(&oldest);
        }
        let id: Rc<[u8]> = id.into();
        self.gone.push_back(id.clone());
        self.elsewhere.insert(id, since);
    }

    /// The client ids whose sessions here are to be ended, without their wills; each once.
    pub fn take_outdated(&mut self) -> impl Iterator<Item = Rc<[u8]>> {
        std::mem::take(&mut self.outdated).into_iter()
    }
}

fn batches<'a>(sessions: impl Iterator<Item = &'a Session>) -> Vec<Vec<u8>> {
    let mut batches: Vec<Vec<u8>> = Vec::new();
    for session in sessions {
        // A client id came out of a packet.
        let Ok(length) = u16::try_from(session.id.len()) else {
            continue;
        };
        let size = 8 + 2 + session.id.len();
        match batches.last() {
            Some(last) if last.len() + size <= BATCH_BYTES => {}
            _ => batches.push(Vec::new()),
        }
        if let Some(batch) = batches.last_mut() {
            batch.extend(session.since.0.to_be_bytes());
            batch.extend(length.to_be_bytes());
            batch.extend_from_slice(&session.id);
        }
    }
    batches
}

/// Time and client id of each session, up to the first that is not whole.
fn sessions(mut message: &[u8]) -> impl Iterator<Item = (Hlc, &[u8])> {
    std::iter::from_fn(move || {
        let (since, rest) = message.split_first_chunk::<8>()?;
        let (length, rest) = rest.split_first_chunk::<2>()?;
        let (id, rest) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
        message = rest;
        Some((Hlc(u64::from_be_bytes(*since)), id))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: ClientKey = ClientKey(1);
    const TWO: ClientKey = ClientKey(2);

    fn outdated(presence: &mut Presence) -> Vec<Vec<u8>> {
        presence.take_outdated().map(|id| id.to_vec()).collect()
    }

    fn tell(to: &mut Presence, messages: &[Vec<u8>]) {
        for message in messages {
            to.told(message, |_| true);
        }
    }

    #[test]
    fn an_older_session_of_a_client_that_has_moved_is_ended_once() {
        let (mut left, mut joined) = (Presence::default(), Presence::default());
        left.login(ONE, b"alice", || Hlc::at_ms(10));
        left.turn();
        joined.login(ONE, b"alice", || Hlc::at_ms(20));
        let told = joined.turn();
        assert_eq!(told.len(), 1);
        assert!(joined.turn().is_empty(), "it is told once");
        tell(&mut left, &told);
        assert_eq!(outdated(&mut left), [b"alice"]);
        assert!(outdated(&mut left).is_empty());
        assert!(left.has_moved(b"alice", Hlc::at_ms(10)) && !left.has_moved(b"alice", Hlc::at_ms(21)));
        assert!(!left.has_moved(b"bob", Hlc::at_ms(0)));
        // Back again.
        left.login(TWO, b"alice", || Hlc::at_ms(30));
        assert!(!left.has_moved(b"alice", Hlc::at_ms(0)));
        tell(&mut left, &told);
        assert!(outdated(&mut left).is_empty(), "that was before");
    }

    #[test]
    fn a_session_that_ends_by_itself_is_not_ended_again() {
        let mut presence = Presence::default();
        presence.login(ONE, b"alice", || Hlc(10));
        let mut elsewhere = Presence::default();
        elsewhere.login(TWO, b"alice", || Hlc(20));
        tell(&mut presence, &elsewhere.turn());
        presence.logout(ONE);
        assert!(outdated(&mut presence).is_empty());
    }

    #[test]
    fn who_was_not_let_in_has_not_moved() {
        let mut presence = Presence::default();
        presence.login(ONE, b"alice", || Hlc::at_ms(1));
        assert!(presence.logout(ONE).is_some());
        assert!(presence.turn().is_empty());
    }

    #[test]
    fn a_login_that_is_asked_about_again_is_no_new_one() {
        let mut presence = Presence::default();
        presence.login(ONE, b"alice", || Hlc::at_ms(1));
        presence.turn();
        presence.login(ONE, b"alice", || Hlc::at_ms(2));
        assert!(presence.turn().is_empty());
        // But the place may be given to somebody else.
        presence.login(ONE, b"bob", || Hlc::at_ms(3));
        assert_eq!(presence.turn().len(), 1);
    }

    #[test]
    fn the_old_connection_of_a_client_may_end_after_the_new_one_began() {
        let mut presence = Presence::default();
        presence.login(ONE, b"alice", || Hlc::at_ms(1));
        presence.login(TWO, b"alice", || Hlc::at_ms(2));
        assert_eq!(
            presence.logout(ONE).map(|session| session.since),
            Some(Hlc::at_ms(1))
        );
        let mut elsewhere = Presence::default();
        elsewhere.login(ONE, b"alice", || Hlc::at_ms(3));
        tell(&mut presence, &elsewhere.turn());
        assert_eq!(outdated(&mut presence), [b"alice"]);
    }

    #[test]
    fn of_two_logins_in_one_millisecond_none_is_the_older_one() {
        let (mut here, mut there) = (Presence::default(), Presence::default());
        here.login(ONE, b"alice", || Hlc::at_ms(7));
        there.login(ONE, b"alice", || Hlc(Hlc::at_ms(7).0 + 1));
        tell(&mut here, &there.turn());
        assert!(outdated(&mut here).is_empty());
        assert!(!here.has_moved(b"alice", Hlc::at_ms(7)));
    }

    #[test]
    fn a_peer_that_was_away_is_told_of_all_in_messages_of_bounded_length() {
        let mut presence = Presence::default();
        for number in 0..MOST_RECENT + 10 {
            let id = format!("client-{number}");
            presence.login(ClientKey(number), id.as_bytes(), || Hlc(number as u64));
            presence.turn();
        }
        let messages = presence.all_recent();
        assert!(messages.len() > 1 && messages.iter().all(|message| message.len() <= BATCH_BYTES));
        let told: Vec<_> = messages.iter().flat_map(|message| sessions(message)).collect();
        assert_eq!(told.len(), MOST_RECENT);
        assert_eq!(told[0], (Hlc(10), b"client-10".as_slice()));
        let mut other = Presence::default();
        tell(&mut other, &messages);
        assert_eq!(other.elsewhere.len(), MOST_RECENT);
        other.told(&[0; 7], |_| true);
        other.told(&[[0; 8].as_slice(), &[0, 9, 1]].concat(), |_| true);
        assert_eq!(other.elsewhere.len(), MOST_RECENT, "what is cut off is no client");
        other.told(
            &batches(
                [Session {
                    id: b"x".as_slice().into(),
                    since: Hlc(5),
                }]
                .iter(),
            )[0],
            |_| false,
        );
        assert!(!other.has_moved(b"x", Hlc(0)), "nor what is not believed");
    }
}
