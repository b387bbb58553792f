//! The DHCP client as a state machine (RFC 2131, section 4.4).
//!
//! A client wants a lease and keeps it. It begins in `Selecting`: it asks who has one to offer, again and again, with
//! growing pauses, for as long as nobody answers. The first offer that makes sense moves it to `Requesting`, which asks
//! for just that; a server that falls silent there costs four tries, then it starts over. With a lease it is `Bound`
//! and quiet until T1. From T1 on it asks the server that leased (`Renewing`), from T2 on any server (`Rebinding`), and
//! when the lease ends without an answer the address is given up and it starts over. A server may say no (NAK) at any
//! request: the address, if there is one, is given up at once and it starts over, after a pause so that a server
//! which always says no isn't flooded. A link that goes away and comes back resets it.
//!
//! Time is in milliseconds of one monotonic clock; randomness comes in with each step. Nothing here does I/O.

use super::message::{Answer, Lease, Query, QueryKind};

/// First pause between two queries, and the longest (RFC 2131, section 4.1: 4 s doubling to 64 s; the first is
/// shorter, because boot waits for it).
const FIRST_PAUSE_MS: u64 = 1_000;
const LONGEST_PAUSE_MS: u64 = 64_000;
/// Tries to get what was offered.
const REQUEST_TRIES: u32 = 4;
/// Pause after a server said no.
const NAK_PAUSE_MS: u64 = 2_000;
/// Shortest pause between two tries to renew (RFC 2131, section 4.4.5).
const RENEW_PAUSE_MS: u64 = 60_000;

/// Where a client is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Looks for servers.
    Selecting {
        /// Transaction.
        xid: u32,
        /// When it began.
        since_ms: u64,
        /// Queries sent.
        tries: u32,
        /// When the next is sent.
        next_ms: u64,
    },
    /// Asks for what was offered.
    Requesting {
        /// Transaction.
        xid: u32,
        /// When it began.
        since_ms: u64,
        /// What was offered.
        offer: Lease,
        /// Queries sent.
        tries: u32,
        /// When the next is sent.
        next_ms: u64,
    },
    /// Has a lease.
    Bound {
        /// Transaction of a renewal that is under way.
        xid: u32,
        /// The lease.
        lease: Lease,
        /// When it was granted: when the request for it was sent.
        since_ms: u64,
        /// When the next query for its renewal is sent.
        next_ms: u64,
        /// When the last one was.
        asked_ms: u64,
    },
}

/// What happens to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Time has passed.
    Tick,
    /// A server answered the current transaction.
    Answer(Answer),
}

/// What a client wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send this to everybody.
    Broadcast(Query),
    /// Send this to one server.
    Unicast(Query, std::net::Ipv4Addr),
    /// Put this lease in force, in place of any earlier one.
    Apply(Lease),
    /// The lease has ended: take its address away.
    Withdraw(Lease),
}

/// A client that begins now.
pub fn start(now_ms: u64, random: u32) -> State {
    State::Selecting { xid: random, since_ms: now_ms, tries: 0, next_ms: now_ms }
}

impl State {
    /// When the next [`Event::Tick`] is due.
    pub fn next_ms(&self) -> u64 {
        match self {
            Self::Selecting { next_ms, .. } | Self::Requesting { next_ms, .. } => *next_ms,
            Self::Bound { next_ms, .. } => *next_ms,
        }
    }

    /// The transaction that answers must belong to.
    pub fn xid(&self) -> u32 {
        match self {
            Self::Selecting { xid, .. } | Self::Requesting { xid, .. } | Self::Bound { xid, .. } => *xid,
        }
    }

    /// The lease in force.
    pub fn lease(&self) -> Option<&Lease> {
        match self {
            Self::Bound { lease, .. } => Some(lease),
            _ => None,
        }
    }
}

/// What becomes of a client, and what it wants done.
pub fn step(state: State, event: Event, now_ms: u64, random: u32) -> (State, Vec<Action>) {
    match (state, event) {
        (state, Event::Tick) if now_ms < state.next_ms() => (state, Vec::new()),
        (State::Selecting { xid, since_ms, tries, .. }, Event::Tick) => {
            let query = Query { xid, secs: secs(since_ms, now_ms), kind: QueryKind::Discover };
            let next_ms = now_ms + pause(tries, random);
            let tries = tries.saturating_add(1);
            (State::Selecting { xid, since_ms, tries, next_ms }, vec![Action::Broadcast(query)])
        }
        (State::Selecting { xid, since_ms, .. }, Event::Answer(Answer::Offer(offer))) => {
            let requesting = State::Requesting { xid, since_ms, offer, tries: 0, next_ms: now_ms };
            step(requesting, Event::Tick, now_ms, random)
        }
        (State::Requesting { tries: REQUEST_TRIES.., .. }, Event::Tick) => {
            step(start(now_ms, random), Event::Tick, now_ms, random)
        }
        (State::Requesting { xid, since_ms, offer, tries, .. }, Event::Tick) => {
            let kind = QueryKind::Select { address: offer.address, server: offer.server };
            let query = Query { xid, secs: secs(since_ms, now_ms), kind };
            let next_ms = now_ms + pause(tries, random);
            (State::Requesting { xid, since_ms, offer, tries: tries + 1, next_ms }, vec![Action::Broadcast(query)])
        }
        (State::Requesting { .. }, Event::Answer(Answer::Ack(lease))) => bind(lease, now_ms, random),
        (State::Requesting { .. }, Event::Answer(Answer::Nak)) => (after_nak(now_ms, random), Vec::new()),
        (State::Bound { lease, since_ms, .. }, Event::Tick) => extend(lease, since_ms, now_ms, random),
        (State::Bound { asked_ms, since_ms, .. }, Event::Answer(Answer::Ack(new))) if asked_ms > since_ms => {
            // Counted from the request: the server's clock began no later than that (section 4.4.1).
            bind(new, asked_ms, random)
        }
        (State::Bound { lease, asked_ms, since_ms, .. }, Event::Answer(Answer::Nak)) if asked_ms > since_ms => {
            (after_nak(now_ms, random), vec![Action::Withdraw(lease)])
        }
        // Late, repeated or unasked-for answers.
        (state @ State::Selecting { .. }, Event::Answer(Answer::Ack(_) | Answer::Nak))
        | (state @ State::Requesting { .. }, Event::Answer(Answer::Offer(_)))
        | (state @ State::Bound { .. }, Event::Answer(_)) => (state, Vec::new()),
    }
}

fn bind(lease: Lease, since_ms: u64, random: u32) -> (State, Vec<Action>) {
    let next_ms = if lease.lease_s == u32::MAX { u64::MAX } else { since_ms + ms(lease.renew_s) };
    let state = State::Bound { xid: random, lease: lease.clone(), since_ms, next_ms, asked_ms: since_ms };
    (state, vec![Action::Apply(lease)])
}

/// T1 has passed: asks the server, from T2 on anybody, and gives up at the end.
fn extend(lease: Lease, since_ms: u64, now_ms: u64, random: u32) -> (State, Vec<Action>) {
    let (rebind_ms, end_ms) = (since_ms + ms(lease.rebind_s), since_ms + ms(lease.lease_s));
    if now_ms >= end_ms {
        let (state, mut actions) = step(start(now_ms, random), Event::Tick, now_ms, random);
        actions.insert(0, Action::Withdraw(lease));
        return (state, actions);
    }
    let query = Query { xid: random, secs: 0, kind: QueryKind::Extend { address: lease.address } };
    let (action, until_ms) = match now_ms < rebind_ms {
        true => (Action::Unicast(query, lease.server), rebind_ms),
        false => (Action::Broadcast(query), end_ms),
    };
    // Half of the time that is left, a minute at least, but not beyond the next turn.
    let next_ms = until_ms.min(now_ms + ((until_ms - now_ms) / 2).max(RENEW_PAUSE_MS));
    (State::Bound { xid: random, lease, since_ms, next_ms, asked_ms: now_ms }, vec![action])
}

fn after_nak(now_ms: u64, random: u32) -> State {
    State::Selecting { xid: random, since_ms: now_ms, tries: 0, next_ms: now_ms + NAK_PAUSE_MS }
}

/// Doubles with each try; up to half a second more or less, so that many hosts don't ask in step.
fn pause(tries: u32, random: u32) -> u64 {
    let pause = (FIRST_PAUSE_MS << tries.min(10)).min(LONGEST_PAUSE_MS);
    pause - 500 + u64::from(random) % 1_001
}

fn secs(since_ms: u64, now_ms: u64) -> u16 {
    u16::try_from(now_ms.saturating_sub(since_ms) / 1_000).unwrap_or(u16::MAX)
}

fn ms(seconds: u32) -> u64 {
    u64::from(seconds) * 1_000
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn lease() -> Lease {
        Lease {
            address: Ipv4Addr::new(10, 0, 2, 15),
            prefix: 24,
            server: Ipv4Addr::new(10, 0, 2, 2),
            routes: Vec::new(),
            dns: Vec::new(),
            mtu: None,
            lease_s: 1_000,
            renew_s: 500,
            rebind_s: 875,
        }
    }

    fn bound() -> State {
        let (state, actions) = step(start(0, 7), Event::Tick, 0, 1);
        assert!(matches!(actions[..], [Action::Broadcast(Query { kind: QueryKind::Discover, xid: 7, .. })]));
        let (state, actions) = step(state, Event::Answer(Answer::Offer(lease())), 10, 1);
        assert!(matches!(actions[..], [Action::Broadcast(Query { kind: QueryKind::Select { .. }, xid: 7, .. })]));
        let (state, actions) = step(state, Event::Answer(Answer::Ack(lease())), 20, 1);
        assert_eq!(actions, [Action::Apply(lease())]);
        state
    }

    #[test]
    fn queries_are_repeated_with_growing_pauses_up_to_a_limit() {
        let mut state = start(0, 7);
        let mut last = 0;
        for _ in 0..20 {
            let now = state.next_ms();
            let (next, actions) = step(state, Event::Tick, now, 500);
            assert_eq!(actions.len(), 1);
            let pause = next.next_ms() - now;
            assert!(pause >= last && pause <= LONGEST_PAUSE_MS, "{pause}");
            (state, last) = (next, pause);
        }
    }

    #[test]
    fn a_server_that_falls_silent_after_its_offer_is_given_up() {
        let (mut state, _) = step(start(0, 7), Event::Answer(Answer::Offer(lease())), 0, 1);
        for _ in 0..REQUEST_TRIES {
            let now = state.next_ms();
            (state, _) = step(state, Event::Tick, now, 1);
        }
        assert!(matches!(state, State::Selecting { tries: 1, .. }));
    }

    #[test]
    fn a_lease_is_renewed_then_rebound_then_given_up() {
        let state = bound();
        assert_eq!(state.next_ms(), 500_020);
        let (state, actions) = step(state, Event::Tick, 500_020, 9);
        assert!(matches!(actions[..], [Action::Unicast(Query { xid: 9, .. }, _)]));
        let (state, actions) = step(state, Event::Tick, 875_020, 10);
        assert!(matches!(actions[..], [Action::Broadcast(Query { kind: QueryKind::Extend { .. }, .. })]));
        let (state, actions) = step(state, Event::Tick, 1_000_020, 11);
        assert_eq!(actions[0], Action::Withdraw(lease()));
        assert!(matches!(state, State::Selecting { xid: 11, .. }));
    }

    #[test]
    fn a_renewed_lease_counts_from_its_request() {
        let (state, _) = step(bound(), Event::Tick, 500_020, 9);
        let (state, actions) = step(state, Event::Answer(Answer::Ack(lease())), 501_000, 9);
        assert_eq!(actions, [Action::Apply(lease())]);
        assert_eq!(state.next_ms(), 1_000_020);
    }

    #[test]
    fn a_no_takes_the_address_away_and_is_not_answered_at_once() {
        let (state, _) = step(bound(), Event::Tick, 500_020, 9);
        let (state, actions) = step(state, Event::Answer(Answer::Nak), 500_030, 9);
        assert_eq!(actions, [Action::Withdraw(lease())]);
        assert_eq!(state.next_ms(), 502_030);
    }

    #[test]
    fn answers_that_nobody_asked_for_change_nothing() {
        let state = bound();
        for answer in [Answer::Nak, Answer::Ack(lease()), Answer::Offer(lease())] {
            assert_eq!(step(state.clone(), Event::Answer(answer), 30, 1), (state.clone(), Vec::new()));
        }
    }

    #[test]
    fn a_lease_for_ever_is_never_renewed() {
        let (state, _) = step(start(0, 7), Event::Answer(Answer::Offer(lease())), 0, 1);
        let forever = Lease { lease_s: u32::MAX, ..lease() };
        let (state, _) = step(state, Event::Answer(Answer::Ack(forever)), 0, 1);
        assert_eq!(state.next_ms(), u64::MAX);
    }
}
