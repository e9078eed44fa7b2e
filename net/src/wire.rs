//! Stats as bytes, both ways: Knative's protobuf messages, written by hand as prost structs (no protoc).
//! A `Stat` alone is what `:9090/metrics` serves; a list of them, with names, is what activators push.

use std::time::Duration;

use pilotlight_core::{RevisionId, Stat, Time};
use prost::Message;

/// Bytes that are not the expected message.
#[derive(Debug, thiserror::Error)]
#[error("malformed stat message: {0}")]
pub struct DecodeError(prost::DecodeError);

/// One stat, as queue-proxies serve it.
pub fn encode_stat(stat: &Stat) -> Vec<u8> {
    WireStat::from(stat).encode_to_vec()
}

/// Reads what [`encode_stat`] wrote.
pub fn decode_stat(bytes: &[u8]) -> Result<Stat, DecodeError> {
    Ok(WireStat::decode(bytes).map_err(DecodeError)?.into())
}

/// A batch of stats, as activators push it.
pub fn encode_stats(stats: &[(RevisionId, Stat)]) -> Vec<u8> {
    let messages = stats.iter().map(|(id, stat)| WireStatMessage {
        namespace: id.namespace.clone(),
        name: id.name.clone(),
        stat: Some(stat.into()),
    });
    WireStatMessages { messages: messages.collect() }.encode_to_vec()
}

/// Reads what [`encode_stats`] wrote. Entries without a stat say nothing and are skipped.
pub fn decode_stats(bytes: &[u8]) -> Result<Vec<(RevisionId, Stat)>, DecodeError> {
    let messages = WireStatMessages::decode(bytes).map_err(DecodeError)?.messages;
    let named = |message: WireStatMessage| {
        Some((RevisionId::new(message.namespace, message.name), message.stat?.into()))
    };
    Ok(messages.into_iter().filter_map(named).collect())
}

#[derive(Clone, PartialEq, Message)]
struct WireStat {
    #[prost(string, tag = "1")]
    pod_name: String,
    #[prost(double, tag = "2")]
    average_concurrent_requests: f64,
    #[prost(double, tag = "3")]
    average_proxied_concurrent_requests: f64,
    #[prost(double, tag = "4")]
    request_count: f64,
    #[prost(double, tag = "5")]
    proxied_request_count: f64,
    #[prost(double, tag = "6")]
    process_uptime: f64,
    #[prost(int64, tag = "7")]
    timestamp: i64,
}

#[derive(Clone, PartialEq, Message)]
struct WireStatMessage {
    #[prost(string, tag = "1")]
    namespace: String,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(message, optional, tag = "3")]
    stat: Option<WireStat>,
}

#[derive(Clone, PartialEq, Message)]
struct WireStatMessages {
    #[prost(message, repeated, tag = "1")]
    messages: Vec<WireStatMessage>,
}

impl From<&Stat> for WireStat {
    fn from(stat: &Stat) -> Self {
        WireStat {
            pod_name: stat.pod_name.clone(),
            average_concurrent_requests: stat.average_concurrent_requests,
            average_proxied_concurrent_requests: stat.average_proxied_concurrent_requests,
            request_count: stat.request_count,
            proxied_request_count: stat.proxied_request_count,
            // proto3 writes no zero, and Knative reads it as "not set".
            process_uptime: stat.process_uptime.map_or(0.0, |uptime| uptime.as_secs_f64()),
            timestamp: stat.timestamp.map_or(0, |time| time.whole_seconds() as i64),
        }
    }
}

impl From<WireStat> for Stat {
    fn from(wire: WireStat) -> Self {
        Stat {
            pod_name: wire.pod_name,
            average_concurrent_requests: wire.average_concurrent_requests,
            average_proxied_concurrent_requests: wire.average_proxied_concurrent_requests,
            request_count: wire.request_count,
            proxied_request_count: wire.proxied_request_count,
            process_uptime: Duration::try_from_secs_f64(wire.process_uptime).ok().filter(|it| !it.is_zero()),
            timestamp: u64::try_from(wire.timestamp).ok().filter(|&it| it > 0).map(Time::from_secs),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn unhex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    // Bytes that Knative's own code writes for these values.
    const STAT: &str = "0a05706f642d3111000000000000f83f19000000000000e03f21000000000000084029000000000000f03f310000000000802840";
    const STATS: &str = "0a220a026e7312037265761a170a0361637411000000000000f03f21000000000000f03f";

    fn a_stat() -> Stat {
        Stat {
            pod_name: "pod-1".to_owned(),
            average_concurrent_requests: 1.5,
            average_proxied_concurrent_requests: 0.5,
            request_count: 3.0,
            proxied_request_count: 1.0,
            process_uptime: Some(Duration::from_millis(12_250)),
            timestamp: None,
        }
    }

    fn a_batch() -> Vec<(RevisionId, Stat)> {
        let stat = Stat {
            pod_name: "act".to_owned(),
            average_concurrent_requests: 1.0,
            request_count: 1.0,
            ..Stat::default()
        };
        vec![(RevisionId::new("ns", "rev"), stat)]
    }

    #[test]
    fn a_stat_is_byte_for_byte_what_knative_writes() {
        assert_eq!(hex(&encode_stat(&a_stat())), STAT);
        assert_eq!(decode_stat(&unhex(STAT)).unwrap(), a_stat());
    }

    #[test]
    fn a_batch_is_byte_for_byte_what_knative_writes() {
        assert_eq!(hex(&encode_stats(&a_batch())), STATS);
        assert_eq!(decode_stats(&unhex(STATS)).unwrap(), a_batch());
    }

    #[test]
    fn zeros_are_left_out() {
        assert!(encode_stat(&Stat::default()).is_empty());
        let named = Stat { pod_name: "pod-1".to_owned(), ..Stat::default() };
        assert_eq!(hex(&encode_stat(&named)), "0a05706f642d31");
    }

    #[test]
    fn a_time_that_cannot_be_counts_as_not_set() {
        for (uptime, timestamp) in [(0.0, 0), (-1.0, -1), (f64::NAN, i64::MIN), (f64::INFINITY, 0)] {
            let wire = WireStat { process_uptime: uptime, timestamp, ..WireStat::from(&Stat::default()) };
            assert_eq!(Stat::from(wire), Stat::default(), "{uptime} {timestamp}");
        }
    }

    #[test]
    fn entries_without_a_stat_are_skipped() {
        let mut bytes = unhex("0a090a026e731203726576");
        bytes.extend(unhex(STATS));
        assert_eq!(decode_stats(&bytes).unwrap(), a_batch());
    }

    #[test]
    fn fields_of_the_future_are_ignored() {
        let mut bytes = unhex(STAT);
        bytes.extend([0x42, 0x01, b'x']);
        assert_eq!(decode_stat(&bytes).unwrap(), a_stat());
    }

    fn stats() -> impl Strategy<Value = Stat> {
        let number = || {
            prop_oneof![Just(0.0), 0.0..1e12, any::<f64>().prop_filter("NaN equals nothing", |n| !n.is_nan())]
        };
        // Both are told as zero where they are not set; these are exact in a double, and in nanoseconds.
        let uptime = proptest::option::of((1..1u64 << 32).prop_map(Duration::from_secs));
        let timestamp = proptest::option::of((1..1u64 << 32).prop_map(Time::from_secs));
        (".{0,40}", number(), number(), number(), number(), uptime, timestamp).prop_map(
            |(pod_name, average, proxied_average, count, proxied_count, uptime, timestamp)| Stat {
                pod_name,
                average_concurrent_requests: average,
                average_proxied_concurrent_requests: proxied_average,
                request_count: count,
                proxied_request_count: proxied_count,
                process_uptime: uptime,
                timestamp,
            },
        )
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_back(batch in prop::collection::vec((".{1,9}", ".{1,9}", stats()), 0..5)) {
            let batch: Vec<(RevisionId, Stat)> =
                batch.into_iter().map(|(namespace, name, stat)| (RevisionId::new(namespace, name), stat)).collect();
            prop_assert_eq!(decode_stats(&encode_stats(&batch)).unwrap(), batch.clone());
            for (_, stat) in batch {
                prop_assert_eq!(decode_stat(&encode_stat(&stat)).unwrap(), stat);
            }
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = (decode_stat(&bytes), decode_stats(&bytes));
        }

        #[test]
        fn no_damage_to_a_message_makes_the_reader_panic(at in 0..35usize, byte in any::<u8>(), length in 0..36usize) {
            let mut bytes = unhex(STATS);
            bytes[at] = byte;
            bytes.truncate(length);
            let _ = decode_stats(&bytes);
        }
    }
}
