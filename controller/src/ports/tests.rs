use proptest::prelude::*;

use super::*;

fn owner(port: &str) -> PortOwner {
    PortOwner::new("shop", "web", port)
}

fn wanted(ports: &[&str]) -> BTreeSet<PortOwner> {
    ports.iter().map(|port| owner(port)).collect()
}

fn at(seconds: u64) -> Time {
    Time::from_secs(1_800_000_000 + seconds)
}

fn data(pairs: &[(&str, &str)]) -> ConfigMap {
    let data = pairs.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect();
    ConfigMap { data: Some(data), ..ConfigMap::default() }
}

const NONE: BTreeSet<u16> = BTreeSet::new();

#[test]
fn a_port_is_allotted_freed_and_rests_for_ten_minutes() {
    let mut table = PortTable::default();
    assert!(table.reconcile(at(0), &wanted(&["a", "b"]), &NONE).has_changed);
    assert_eq!((table.port(&owner("a")), table.port(&owner("b"))), (Some(10_000), Some(10_001)));
    assert_eq!(table.owner(10_001), Some(&owner("b")));
    assert!(!table.reconcile(at(1), &wanted(&["a", "b"]), &NONE).has_changed, "nothing is new");

    assert!(table.reconcile(at(2), &wanted(&["b"]), &NONE).has_changed);
    assert_eq!((table.port(&owner("a")), table.owner(10_000)), (None, None));
    // Next-fit: the search goes on after the last port, and comes round.
    table.next = 10_000;
    table.reconcile(at(600), &wanted(&["b", "c"]), &NONE);
    assert_eq!(table.port(&owner("c")), Some(10_002), "10000 still rests");
    table.next = 10_000;
    assert!(!table.reconcile(at(700), &wanted(&["b", "c"]), &NONE).has_changed, "time alone changes nothing");
    table.reconcile(at(602), &wanted(&["b", "c", "d"]), &NONE);
    assert_eq!(table.port(&owner("d")), Some(10_000), "it has rested");
}

#[test]
fn the_search_goes_on_where_it_stopped() {
    let mut table = PortTable::default();
    for second in 0..5 {
        table.reconcile(at(second * 1_000), &wanted(&["a"]), &NONE);
        assert_eq!(table.port(&owner("a")), Some(10_000 + second as u16));
        table.reconcile(at(second * 1_000 + 1), &wanted(&[]), &NONE);
        (table, _) = PortTable::decode(&table.encode("system"));
    }
}

#[test]
fn ports_of_sidecars_are_never_allotted() {
    let mut table = PortTable::default();
    let all: BTreeSet<PortOwner> =
        (0..PortTable::capacity()).map(|number| owner(&number.to_string())).collect();
    assert_eq!(table.reconcile(at(0), &all, &NONE).exhausted, None);
    assert_eq!(PortTable::capacity(), 22_768 - 100 - 1 - 1 - 256);
    for port in [15_000, 15_006, 15_099, 19_000, 20_000, 21_000, 21_255, 9_999, 32_768] {
        assert_eq!(table.owner(port), None, "{port}");
    }
    for port in [10_000, 14_999, 15_100, 18_999, 21_256, 32_767] {
        assert!(table.owner(port).is_some(), "{port}");
    }
    let more: BTreeSet<PortOwner> = all.iter().cloned().chain([owner("x"), owner("y")]).collect();
    let result = table.reconcile(at(1), &more, &NONE);
    assert!(!result.has_changed);
    let text = result.exhausted.unwrap().to_string();
    assert!(
        text.starts_with("no activator port is left for 2 ports of Services: of 22410 ports 22410 are"),
        "{text}"
    );
}

#[test]
fn a_port_that_an_activator_cannot_bind_is_replaced() {
    let mut table = PortTable::default();
    table.reconcile(at(0), &wanted(&["a", "b"]), &NONE);
    assert!(table.reconcile(at(1), &wanted(&["a", "b"]), &BTreeSet::from([10_000, 10_002])).has_changed);
    assert_eq!((table.port(&owner("a")), table.port(&owner("b"))), (Some(10_003), Some(10_001)));
    assert!(!table.reconcile(at(2), &wanted(&["a", "b"]), &BTreeSet::from([10_000, 10_002])).has_changed);
}

#[test]
fn a_port_that_two_claim_belongs_to_neither_and_rests() {
    let object = data(&[("a", "web/http 10005\n"), ("b", "web/http 10005\nweb/grpc 10006")]);
    let (mut table, faults) = PortTable::decode(&object);
    assert_eq!(faults, ["port 10005 is claimed by a/web/http and b/web/http: it belongs to none"]);
    let [first, second] = ["a", "b"].map(|namespace| PortOwner::new(namespace, "web", "http"));
    assert_eq!((table.port(&first), table.port(&second), table.owner(10_005)), (None, None, None));
    table.next = 10_005;
    let wanted = BTreeSet::from([first.clone(), second.clone(), PortOwner::new("b", "web", "grpc")]);
    assert!(table.reconcile(at(0), &wanted, &NONE).has_changed);
    assert_eq!((table.port(&first), table.port(&second)), (Some(10_007), Some(10_008)));
}

#[test]
fn lines_that_make_no_sense_are_told_and_harm_no_other() {
    let object = data(&[
        ("_next", "soon"),
        ("_freed", "10001 1800000000\nnever\n80 1\n10002 x\n10003 1 1"),
        (
            "shop",
            "web/http 10000\nweb 10001\n/http 10004\nweb/http 10009\nweb/low 80\nweb/mesh 15006\nweb/x 1e4\n\u{0}",
        ),
    ]);
    let (table, faults) = PortTable::decode(&object);
    assert_eq!(table.entries().collect::<Vec<_>>(), [(&owner("http"), 10_000)]);
    assert_eq!(faults.len(), 1 + 4 + 7, "{faults:#?}");
    assert!(faults.contains(&"shop has `web/low 80`, not `service/port number`".to_owned()));
    assert!(faults.contains(&"shop/web/http claims port 10009 beside 10000: it keeps 10000".to_owned()));
    assert_eq!(PortTable::decode(&ConfigMap::default()), (PortTable::default(), Vec::new()));
}

#[test]
fn the_write_conflicts_with_whoever_wrote_in_between() {
    let mut object = PortTable::default().encode("system");
    assert_eq!(object.metadata.resource_version, None, "the first write creates");
    object.metadata.resource_version = Some("7".to_owned());
    let (table, _) = PortTable::decode(&object);
    assert_eq!(table.version(), "7");
    assert_eq!(table.encode("system"), object);
}

#[test]
fn a_lost_table_is_made_anew_of_ports_in_use() {
    let mut table = PortTable::default();
    assert!(table.adopt(&owner("a"), 10_500));
    assert!(!table.adopt(&owner("b"), 10_500), "it is taken");
    assert!(!table.adopt(&owner("a"), 10_501), "it has one");
    assert!(!table.adopt(&owner("c"), 15_006), "nobody may have it");
    assert!(!table.reconcile(at(0), &wanted(&["a"]), &NONE).has_changed);
}

#[test]
fn ten_thousand_ports_fit_well_into_a_config_map() {
    let mut table = PortTable::default();
    let owner = |number: usize| {
        PortOwner::new(
            format!("team-{:04}", number % 1_000),
            format!("checkout-frontend-v2-{number:05}"),
            "http-web",
        )
    };
    table.reconcile(at(0), &(0..10_000).map(owner).collect(), &NONE);
    let bytes = |object: &ConfigMap| {
        object.data.iter().flatten().map(|(key, text)| key.len() + text.len()).sum::<usize>()
    };
    assert!(bytes(&table.encode("system")) < 500 << 10, "{}", bytes(&table.encode("system")));
    table.reconcile(at(1), &BTreeSet::new(), &NONE);
    assert!(bytes(&table.encode("system")) < 200 << 10, "{}", bytes(&table.encode("system")));
}

fn owners() -> impl Strategy<Value = BTreeSet<PortOwner>> {
    let owner = ("[a-c]", "[a-z][a-z0-9-]{0,3}", "[a-z]{0,2}");
    let owner = owner.prop_map(|(namespace, service, port)| PortOwner::new(namespace, service, port));
    proptest::collection::btree_set(owner, 0..12)
}

proptest! {
    #[test]
    fn a_table_is_read_as_it_was_written(steps in proptest::collection::vec((owners(), 0_u64..900, proptest::collection::btree_set(10_000_u16..10_020, 0..3)), 1..8)) {
        let (mut table, mut now) = (PortTable::default(), at(0));
        let mut freed: BTreeMap<u16, Time> = BTreeMap::new();
        for (wanted, seconds, unbindable) in steps {
            now += Duration::from_millis(seconds * 1_001);
            let before = table.clone();
            let result = table.reconcile(now, &wanted, &unbindable);
            prop_assert_eq!(result.has_changed, table != before);
            prop_assert_eq!(table.entries().map(|(owner, _)| owner.clone()).collect::<BTreeSet<_>>(), wanted.clone());
            prop_assert!(table.entries().all(|(owner, port)| table.owner(port) == Some(owner)));
            for (owner, port) in table.entries().filter(|(owner, port)| before.port(owner) != Some(*port)) {
                let rested = freed.get(&port).is_none_or(|since| now.since(*since) >= REST);
                prop_assert!(rested, "{} got {} too early", owner, port);
            }
            let gone = before.entries().filter(|(owner, port)| table.port(owner) != Some(*port));
            freed.extend(gone.map(|(_, port)| (port, now)));
            prop_assert!(!table.reconcile(now, &wanted, &unbindable).has_changed);
            let (read, faults) = PortTable::decode(&table.encode("system"));
            prop_assert_eq!(&read, &table);
            prop_assert!(faults.is_empty());
        }
    }

    #[test]
    fn whatever_is_written_there_it_is_read(text in proptest::collection::btree_map("[a-z_]{1,6}|_freed|_next", "([a-c]/[a-b]? ?1000[0-3]|100[0-9]{2} [0-9]*|.*|\n){0,8}", 0..5)) {
        let object = ConfigMap { data: Some(text), ..ConfigMap::default() };
        let (table, _) = PortTable::decode(&object);
        prop_assert!(table.entries().all(|(owner, port)| table.owner(port) == Some(owner)));
        let (again, faults) = PortTable::decode(&table.encode("system"));
        prop_assert_eq!(again, table);
        prop_assert!(faults.is_empty(), "{:?}", faults);
    }
}
