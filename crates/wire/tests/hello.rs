//! Who may talk to whom (rule 41).

use quorate_wire::{Identity, Refusal};
use raft::{ClusterId, Index, Instance, Restart, Seating, ServerId};

const CLUSTER: ClusterId = ClusterId(0xc1);
const OTHER_CLUSTER: ClusterId = ClusterId(0xc2);

/// Server `id` of three, with instance `id * 10`.
fn unseated(id: u64) -> Identity {
    Identity {
        id: ServerId(id),
        instance: Instance(id * 10),
        restart: Restart(1),
        seating: Seating::Unseated,
        members: (1..=3).map(|id| (ServerId(id), None)).collect(),
        members_hash: 0x77,
        backup: 0,
    }
}

/// The same, in `cluster`, in which all three are seated.
fn seated(id: u64, cluster: ClusterId) -> Identity {
    let mut identity = unseated(id);
    identity.seating = Seating::Seated {
        cluster,
        configuration_index: Index(1),
    };
    identity.members = (1..=3)
        .map(|id| (ServerId(id), Some(Instance(id * 10))))
        .collect();
    identity
}

/// What server 2 makes of server 1.
fn meet(caller: &Identity, called: &Identity) -> Result<u8, Refusal> {
    called.check(&caller.hello(called.id))
}

#[test]
fn members_of_one_cluster_talk() {
    assert_eq!(meet(&seated(1, CLUSTER), &seated(2, CLUSTER)), Ok(1));
    assert_eq!(meet(&unseated(1), &unseated(2)), Ok(1));
}

#[test]
fn an_unseated_server_meets_its_cluster() {
    assert_eq!(meet(&seated(1, CLUSTER), &unseated(2)), Ok(1));
    let mut seat_is_empty = seated(2, CLUSTER);
    seat_is_empty.members[0].1 = None;
    assert_eq!(meet(&unseated(1), &seat_is_empty), Ok(1));
    // Seated, and back before it knows: its data directory is still the one with the seat.
    assert_eq!(meet(&unseated(1), &seated(2, CLUSTER)), Ok(1));
}

#[test]
fn a_wiped_disk_does_not_get_its_seat_back() {
    let mut wiped = unseated(1);
    wiped.instance = Instance(11);
    let seated_instance = Instance(10);
    let refusal = Err(Refusal::SeatTaken {
        seated: seated_instance,
    });
    assert_eq!(meet(&wiped, &seated(2, CLUSTER)), refusal);
    let mut of_the_cluster = seated(1, CLUSTER);
    of_the_cluster.instance = Instance(11);
    assert_eq!(meet(&of_the_cluster, &seated(2, CLUSTER)), refusal);
}

#[test]
fn clusters_do_not_mix() {
    let refusal = Err(Refusal::OtherCluster { cluster: CLUSTER });
    assert_eq!(
        meet(&seated(1, OTHER_CLUSTER), &seated(2, CLUSTER)),
        refusal
    );
    let mut met = unseated(2);
    met.seating = Seating::Met(CLUSTER);
    assert_eq!(meet(&seated(1, OTHER_CLUSTER), &met), refusal);
    assert_eq!(meet(&seated(1, CLUSTER), &met), Ok(1));
    assert_eq!(meet(&unseated(1), &met), Ok(1));
}

#[test]
fn two_unseated_servers_must_agree_on_the_members() {
    let mut other = unseated(1);
    other.members_hash = 0x78;
    assert_eq!(meet(&other, &unseated(2)), Err(Refusal::OtherMembers));
    // Whoever is seated goes by the log's configuration.
    assert_eq!(meet(&other, &seated(2, CLUSTER)), Ok(1));
    other.seating = seated(1, CLUSTER).seating;
    assert_eq!(meet(&other, &unseated(2)), Ok(1));
}

#[test]
fn a_stranger_a_wrong_number_and_oneself_are_refused() {
    assert_eq!(
        meet(&unseated(4), &unseated(2)),
        Err(Refusal::UnknownServer)
    );
    assert_eq!(
        meet(&unseated(2), &unseated(2)),
        Err(Refusal::UnknownServer)
    );
    let hello = unseated(1).hello(ServerId(3));
    assert_eq!(unseated(2).check(&hello), Err(Refusal::WrongServer));
}

#[test]
fn the_highest_common_version_is_spoken() {
    let mut hello = unseated(1).hello(ServerId(2));
    hello.versions = (1, 9);
    assert_eq!(unseated(2).check(&hello), Ok(1));
    hello.versions = (2, 9);
    assert_eq!(unseated(2).check(&hello), Err(Refusal::Version));
    hello.versions = (0, 0);
    assert_eq!(unseated(2).check(&hello), Err(Refusal::Version));
    hello.versions = (9, 1);
    assert_eq!(unseated(2).check(&hello), Err(Refusal::Version));
}

#[test]
fn a_restored_server_without_a_seat_talks_to_those_alone_that_began_with_the_same_backup() {
    let restored = |mut identity: Identity, backup: u64| {
        identity.backup = backup;
        identity
    };
    let ok = Ok(1);
    let refused = Err(Refusal::OtherBackup);
    let cases = [
        // Before there is a cluster.
        (restored(unseated(1), 7), restored(unseated(2), 7), ok),
        (restored(unseated(1), 7), restored(unseated(2), 8), refused),
        (restored(unseated(1), 7), unseated(2), refused),
        // One comes later.
        (
            restored(unseated(1), 7),
            restored(seated(2, CLUSTER), 7),
            ok,
        ),
        (
            restored(unseated(1), 7),
            restored(seated(2, CLUSTER), 8),
            refused,
        ),
        (restored(unseated(1), 7), seated(2, CLUSTER), refused),
        // What comes empty is given everything.
        (unseated(1), restored(seated(2, CLUSTER), 7), ok),
        // Whoever is seated has got everything.
        (restored(seated(1, CLUSTER), 7), seated(2, CLUSTER), ok),
    ];
    for (one, other, expected) in cases {
        assert_eq!(meet(&one, &other), expected, "{one:?} calls {other:?}");
        assert_eq!(meet(&other, &one), expected, "{other:?} calls {one:?}");
    }
}
