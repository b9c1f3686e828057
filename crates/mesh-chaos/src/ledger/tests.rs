use super::*;

const S: Duration = Duration::from_secs(1);

/// One stream with a witness (0) and a subscriber of its own (1), both subscribed from the first second on.
fn ledger() -> Ledger {
    let mut ledger = Ledger::new(1, |_| false);
    ledger.add_reader("witness".to_owned(), None);
    ledger.add_reader("own".to_owned(), Some(0));
    for reader in 0..2 {
        ledger.connected(reader);
        ledger.opened(reader, false, S);
    }
    ledger
}

fn stamped(stamp: &str) -> Arrival<'_> {
    Arrival {
        stamp: Some(stamp),
        ..Arrival::default()
    }
}

#[test]
fn what_came_to_everyone_is_well() {
    let mut ledger = ledger();
    let number = ledger.sent(0, 2 * S);
    for reader in 0..2 {
        ledger.received(reader, 0, number, stamped("a"), 2 * S);
    }
    assert_eq!(ledger.unacknowledged(), 1);
    ledger.acknowledged(0, number, 3 * S);
    assert_eq!((ledger.outstanding(), ledger.unacknowledged()), (0, 0));
    ledger.finish(4 * S);
    assert_eq!(ledger.broken(), [""; 0]);
    let expected = Tally {
        sent: 1,
        acknowledged: 1,
        received: 2,
        ..Tally::default()
    };
    assert_eq!(*ledger.tally(), expected);
}

#[test]
fn what_was_acknowledged_and_is_owed_and_does_not_come_is_lost() {
    let mut ledger = ledger();
    let number = ledger.sent(0, 2 * S);
    ledger.received(1, 0, number, stamped("a"), 2 * S);
    ledger.acknowledged(0, number, 2 * S);
    assert_eq!(ledger.outstanding(), 1);
    ledger.judge(2 * S + PATIENCE);
    assert_eq!(ledger.tally().lost, 0, "not yet");
    ledger.judge(3 * S + PATIENCE);
    assert_eq!(ledger.tally().lost, 1);
    assert!(
        ledger.broken()[0].contains("0/0 did not come to witness"),
        "{:?}",
        ledger.broken()
    );
}

#[test]
fn who_was_not_subscribed_is_owed_nothing_but_somebody_must_have_it() {
    let mut ledger = ledger();
    ledger.closed(1, 10 * S);
    let number = ledger.sent(0, 11 * S);
    ledger.acknowledged(0, number, 11 * S);
    ledger.received(0, 0, number, stamped("a"), 11 * S);
    ledger.opened(1, false, 12 * S);
    ledger.finish(100 * S);
    assert_eq!((ledger.tally().lost, ledger.tally().missed_moving), (0, 1));

    ledger.closed(0, 200 * S);
    ledger.closed(1, 200 * S);
    let number = ledger.sent(0, 201 * S);
    ledger.acknowledged(0, number, 201 * S);
    ledger.finish(300 * S);
    assert_eq!((ledger.tally().lost, ledger.tally().unjudged), (1, 1));
}

#[test]
fn a_session_that_was_kept_owes_what_came_meanwhile() {
    for (is_same, lost) in [(true, 1), (false, 0)] {
        let mut ledger = ledger();
        ledger.closed(1, 10 * S);
        let number = ledger.sent(0, 11 * S);
        ledger.acknowledged(0, number, 11 * S);
        ledger.received(0, 0, number, stamped("a"), 11 * S);
        ledger.opened(1, is_same, 12 * S);
        ledger.finish(100 * S);
        assert_eq!(ledger.tally().lost, lost);
    }
}

#[test]
fn who_was_cut_off_is_owed_what_was_long_before() {
    for (cut, lost) in [(2 * S + GRACE, 1), (S + GRACE, 0)] {
        let mut ledger = ledger();
        let number = ledger.sent(0, 2 * S);
        ledger.acknowledged(0, number, 2 * S);
        ledger.received(1, 0, number, stamped("a"), 2 * S);
        ledger.closed(0, cut);
        ledger.finish(100 * S);
        assert_eq!(ledger.tally().lost, lost, "{cut:?}");
    }
}

#[test]
fn repetitions_are_told_apart_by_their_cause() {
    let mut ledger = ledger();
    let number = ledger.sent(0, 2 * S);
    let get = |ledger: &mut Ledger, how| ledger.received(1, 0, number, how, 3 * S);
    get(&mut ledger, stamped("a"));
    let dup = Arrival {
        dup: true,
        ..stamped("a")
    };
    get(&mut ledger, dup);
    get(
        &mut ledger,
        Arrival {
            retained: true,
            ..stamped("a")
        },
    );
    ledger.connected(1);
    get(&mut ledger, stamped("a"));
    ledger.sent_again(0, number);
    get(&mut ledger, stamped("b"));
    let causes = [Cause::SentAgain, Cause::Redelivered, Cause::Reconnected];
    assert_eq!(ledger.tally().twice, causes.map(|cause| (cause, 1)).into());
    assert_eq!((ledger.tally().doubled, ledger.tally().sent_again), (0, 1));
}

#[test]
fn the_same_on_one_connection_and_two_stamps_of_one_sending_are_wrong() {
    for (second, attempts) in [("a", 2), ("b", 1)] {
        let mut ledger = ledger();
        let number = ledger.sent(0, 2 * S);
        for _ in 1..attempts {
            ledger.sent_again(0, number);
        }
        ledger.received(0, 0, number, stamped("a"), 3 * S);
        ledger.received(0, 0, number, stamped(second), 3 * S);
        assert_eq!(ledger.tally().doubled, 1);
        assert!(ledger.broken()[0].contains("came to witness twice"));
    }
    let mut ledger = ledger();
    ledger.received(0, 0, 7, stamped("a"), 3 * S);
    assert!(ledger.broken()[0].contains("was never sent"));
}

#[test]
fn a_reader_without_stamps_knows_a_message_by_its_number() {
    let mut ledger = ledger();
    let number = ledger.sent(0, 2 * S);
    let plain = Arrival::default();
    ledger.received(1, 0, number, plain, 3 * S);
    let dup = Arrival { dup: true, ..plain };
    ledger.received(1, 0, number, dup, 3 * S);
    ledger.connected(1);
    ledger.received(1, 0, number, plain, 3 * S);
    let causes = [Cause::Redelivered, Cause::Reconnected];
    assert_eq!(ledger.tally().twice, causes.map(|cause| (cause, 1)).into());
    ledger.sent_again(0, number);
    ledger.received(1, 0, number, plain, 3 * S);
    assert_eq!(ledger.tally().twice.get(&Cause::SentAgain), Some(&1));

    let once = ledger.sent(0, 4 * S);
    ledger.received(1, 0, once, plain, 5 * S);
    ledger.received(1, 0, once, plain, 5 * S);
    assert_eq!(
        ledger.tally().doubled,
        1,
        "sent once, and twice on one connection"
    );
}

#[test]
fn of_retained_messages_the_latest_is_owed() {
    let mut ledger = Ledger::new(1, |_| true);
    ledger.add_reader("witness".to_owned(), None);
    ledger.connected(0);
    ledger.opened(0, false, S);
    let first = ledger.sent(0, 2 * S);
    ledger.acknowledged(0, first, 2 * S);
    assert_eq!(ledger.outstanding(), 1);
    let second = ledger.sent(0, 3 * S);
    ledger.acknowledged(0, second, 3 * S);
    ledger.received(0, 0, second, stamped("b"), 4 * S);
    assert_eq!(ledger.outstanding(), 0);
    let third = ledger.sent(0, 5 * S);
    ledger.acknowledged(0, third, 5 * S);
    ledger.finish(100 * S);
    assert_eq!((ledger.tally().superseded, ledger.tally().lost), (1, 1));
    assert!(ledger.broken()[0].contains("0/2"), "{:?}", ledger.broken());
}
