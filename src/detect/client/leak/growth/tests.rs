use super::*;

const AT: Timestamp = Timestamp::from_nanos(1_000_000_000_000);

fn second(at: u64) -> Timestamp {
    AT + Duration::from_secs(at)
}

/// A client made for a request, with its two monitors.
fn made(at: u64) -> Made {
    Made {
        at: second(at),
        used_at: second(at + 1),
        is_used: true,
        begins_process: false,
        connections: 3,
        monitors: 2,
    }
}

/// One every so many seconds.
fn every(seconds: u64, many: u64) -> Vec<Made> {
    (0..many).map(|number| made(number * seconds)).collect()
}

fn growth(made: &[Made], at: u64) -> Growth {
    Growth::of(made.to_vec(), [].iter(), LeakSign::Monitors, second(at))
}

#[track_caller]
fn check(made: &[Made], at: u64, is_leak: bool) {
    assert_eq!(growth(made, at).is_leak(), is_leak);
}

#[test]
fn clients_that_are_left_behind_one_after_the_other_are_a_leak() {
    // The eighth is made after 28 s, used until the 29th, and has rested for three times the pace at 41 s.
    check(&every(4, 11), 40, false);
    check(&every(4, 11), 41, true);
    let leak = growth(&every(4, 11), 41);
    assert_eq!(leak.evident_at(), second(41));
    assert_eq!(
        (leak.open(), leak.left(), leak.closed_since(AT)),
        (11, 8, 0)
    );
    assert_eq!((leak.connections_left(), leak.monitors_left()), (24, 16));
    assert_eq!(leak.rested(), Duration::from_secs(12));
}

#[test]
fn a_fast_pace_is_a_leak_when_it_lasts_longer_than_a_start() {
    check(&every(2, 15), 29, false);
    check(&every(2, 16), 30, true);
    assert_eq!(growth(&every(2, 16), 31).evident_at(), second(30));
}

#[test]
fn the_client_that_serves_everything_else_does_not_hide_a_leak() {
    let mut clients = every(4, 12);
    clients[0].used_at = second(44);
    check(&clients, 45, true);
    assert_eq!(growth(&clients, 45).before(second(4)), 1);
}

#[test]
fn tenants_that_are_used_again_are_no_leak() {
    let mut clients = every(4, 40);
    for tenant in clients.iter_mut().step_by(4) {
        tenant.used_at = second(158);
    }
    check(&clients, 159, false);
}

#[test]
fn a_start_with_many_clients_is_no_leak() {
    let mut clients: Vec<Made> = (0..20).map(|_| made(0)).collect();
    check(&clients, 60, false);
    // Nor with one that comes much later.
    clients.push(made(50));
    check(&clients, 60, false);
}

#[test]
fn what_has_stopped_is_no_leak() {
    check(&every(4, 11), 51, false);
    let leak = growth(&every(4, 11), 60);
    assert!(leak.goes_on());
    assert!(!growth(&every(4, 11), 72).goes_on());
}

#[test]
fn clients_that_are_closed_again_are_no_leak() {
    let closed: Vec<Timestamp> = (0..4).map(|number| second(number * 10)).collect();
    let growth = Growth::of(every(4, 12), closed.iter(), LeakSign::Monitors, second(45));
    assert!(!growth.is_leak());
}

#[test]
fn processes_that_come_one_after_the_other_are_no_leak() {
    let mut clients = every(4, 12);
    for client in clients.iter_mut().step_by(3) {
        client.begins_process = true;
    }
    check(&clients, 45, false);
}

#[test]
fn clients_that_carried_nothing_were_made_for_another_reason() {
    let mut clients = every(4, 12);
    for client in &mut clients {
        client.is_used = false;
    }
    check(&clients, 45, false);
}

#[test]
fn where_each_may_be_a_process_of_its_own_many_more_are_a_leak() {
    let growth = |many: u64| {
        let made = every(4, many);
        Growth::of(made, [].iter(), LeakSign::Number, second(many * 4))
    };
    // Three rest for less than three times the pace.
    assert!(!growth(66).is_leak());
    assert!(growth(67).is_leak());
}
