//! Stats as bytes, both ways: Knative's protobuf messages, written by hand as prost structs (no protoc).
//! A `Stat` alone is what `:9090/metrics` serves; a list of them, with names, is what activators push.

use pilotlight_core::{RevisionId, Stat};
use prost::Message;

/// The bytes are not the message they should be.
#[derive(Debug, thiserror::Error)]
#[error("malformed stat message: {0}")]
pub struct DecodeError(#[from] prost::DecodeError);

/// One stat, as queue-proxies serve it.
pub fn encode_stat(stat: &Stat) -> Vec<u8> {
    WireStat::from(stat).encode_to_vec()
}

/// Reads what [`encode_stat`] wrote.
pub fn decode_stat(bytes: &[u8]) -> Result<Stat, DecodeError> {
    Ok(WireStat::decode(bytes)?.into())
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
    let messages = WireStatMessages::decode(bytes)?.messages;
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
            process_uptime: stat.process_uptime,
            timestamp: stat.timestamp,
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
            process_uptime: wire.process_uptime,
            timestamp: wire.timestamp,
        }
    }
}
