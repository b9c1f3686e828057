//! Who is logged in as a user of the mesh, and what part each plays.

use mesh_model::names::{CLIENT_ID_PREFIX, HEALTH_USER, LINK_USER, READER_PREFIX, parse_link_client_id};

use super::{ClientKey, Login};
use crate::options::Options;

/// The part of a session that logged in as a user of the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// The link that a peer fetches from here; the peer's place in the options.
    Link(usize),
    /// This plugin itself, which reads what its broker stores.
    Reader,
    /// A probe.
    Health,
}

impl Part {
    fn user(self) -> &'static [u8] {
        match self {
            Self::Link(_) | Self::Reader => LINK_USER.as_bytes(),
            Self::Health => HEALTH_USER.as_bytes(),
        }
    }
}

#[derive(Debug)]
struct Session {
    client: ClientKey,
    part: Part,
    /// A session that is resumed has subscriptions that nobody asks about again.
    clean: bool,
    /// Whether we were ever asked about a subscription of it.
    asked: bool,
}

/// The sessions of users of the mesh: a handful, so they are searched one by one.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    all: Vec<Session>,
    /// A bit for each of the first 64 peers whose link is among them.
    links: u64,
}

impl Sessions {
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Admits a session. What was known of the same client stays known if it plays the same part: a broker that
    /// reloads its configuration asks about every client again.
    pub(super) fn admit(&mut self, login: &Login<'_>, part: Part, before: Option<Known>) {
        self.all.push(Session {
            client: login.client,
            part,
            clean: login.clean_session,
            asked: before.is_some_and(|known| known.0.part == part && known.0.asked),
        });
        self.note_links();
    }

    /// Forgets the session of `client`, if there is one.
    pub(super) fn forget(&mut self, client: ClientKey) -> Option<Known> {
        let at = self.all.iter().position(|session| session.client == client)?;
        let known = Known(self.all.swap_remove(at));
        self.note_links();
        Some(known)
    }

    fn note_links(&mut self) {
        let bit = |session: &Session| match session.part {
            Part::Link(peer) => u32::try_from(peer)
                .ok()
                .and_then(|at| 1u64.checked_shl(at))
                .unwrap_or(0),
            Part::Health | Part::Reader => 0,
        };
        self.links = self.all.iter().map(bit).fold(0, |all, bit| all | bit);
    }

    pub(super) fn contains(&self, client: ClientKey) -> bool {
        self.all.iter().any(|session| session.client == client)
    }

    /// Whether somebody plays this part.
    pub(super) fn has(&self, part: Part) -> bool {
        self.all.iter().any(|session| session.part == part)
    }

    /// Whether the links of all of so many peers are known to be connected.
    pub(super) fn has_links(&self, peers: usize) -> bool {
        self.links.count_ones() as usize == peers
    }

    /// The part of `client`, if it logged in.
    pub(super) fn logged_in(&self, client: ClientKey) -> Option<Part> {
        let session = self.all.iter().find(|session| session.client == client)?;
        Some(session.part)
    }

    /// Whether `client` plays this part.
    pub(super) fn is(&self, client: ClientKey, part: Part) -> bool {
        let mut all = self.all.iter();
        all.any(|session| session.client == client && session.part == part)
    }

    /// The part of `client`, if it logged in and still has the name it logged in with.
    pub(super) fn part(&self, client: ClientKey, user: Option<&[u8]>) -> Option<Part> {
        let part = self.logged_in(client)?;
        (user == Some(part.user())).then_some(part)
    }

    /// We were asked about a subscription of `client`.
    pub(super) fn asked(&mut self, client: ClientKey) {
        if let Some(session) = self.all.iter_mut().find(|session| session.client == client) {
            session.asked = true;
        }
    }

    /// Whether a link has subscriptions that we were not asked about. `subscriptions` tells how many a client has.
    pub(super) fn any_unasked(&self, subscriptions: impl Fn(ClientKey) -> Option<usize>) -> bool {
        self.all.iter().any(|session| {
            let suspect = matches!(session.part, Part::Link(_)) && session.clean && !session.asked;
            suspect && subscriptions(session.client).is_some_and(|count| count > 0)
        })
    }
}

/// What is known of a session that was just forgotten.
pub(super) struct Known(Session);

/// Whether this login is the reader's, or a link's, which is known by one of `link_ids`; the refusal otherwise.
pub(super) fn link<'a>(
    login: &Login<'_>,
    options: &Options,
    reader_id: &str,
    mut link_ids: impl Iterator<Item = &'a str>,
) -> Result<Part, &'static str> {
    if !same_secret(login.password, &options.link_password) {
        return Err("wrong password");
    }
    if login.id == reader_id.as_bytes() {
        return Ok(Part::Reader);
    }
    let peer = link_ids.position(|id| id.as_bytes() == login.id);
    peer.map(Part::Link)
        .ok_or("the client id is not that of a link from this broker to one of its peers")
}

/// Whether this login is mesh-health's; the refusal otherwise.
pub(super) fn health(login: &Login<'_>, options: &Options) -> Result<Part, &'static str> {
    if !same_secret(login.password, &options.health_password) {
        return Err("wrong password");
    }
    let id = String::from_utf8_lossy(login.id);
    // With the id of a link or a reader it would throw that one out.
    let taken = parse_link_client_id(&id).is_some() || id.starts_with(READER_PREFIX);
    if !id.starts_with(CLIENT_ID_PREFIX) || taken {
        return Err("the client id is not one of mesh-health");
    }
    Ok(Part::Health)
}

/// Compares without telling by its duration how much is right.
pub(super) fn same_secret(given: Option<&[u8]>, secret: &str) -> bool {
    let given = given.unwrap_or_default();
    let secret = secret.as_bytes();
    let mut difference = given.len() ^ secret.len();
    for (at, expected) in secret.iter().enumerate() {
        let byte = given.get(at).copied().unwrap_or_default();
        difference |= usize::from(std::hint::black_box(byte ^ expected));
    }
    difference == 0
}
