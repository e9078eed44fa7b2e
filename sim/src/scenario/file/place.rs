//! Changes to what was written, by place: `app.service-time`, `settings[0].annotations.target`.

use pilotlight_config::Fault;
use serde_json::{Map, Value};

/// Writes `value` at `path`; maps on the way there are made, entries of lists are not. Null takes the field away.
pub(super) fn put(root: &mut Value, path: &str, value: Value) -> Result<(), Fault> {
    let fault = |rule: String| Fault::without_value(path, rule);
    let mut place = root;
    let mut walked = String::new();
    for step in path.split('.') {
        let (name, indices) = step.split_once('[').map_or((step, ""), |(name, rest)| (name, rest));
        if name.is_empty() {
            return Err(fault("is not a place, such as app.service-time or settings[0].pods".to_owned()));
        }
        if place.is_null() {
            *place = Value::Object(Map::new());
        }
        let Value::Object(fields) = place else {
            return Err(fault(format!("`{walked}` is a single value and has nothing below it")));
        };
        place = fields.entry(name.to_owned()).or_insert(Value::Null);
        walked = if walked.is_empty() { name.to_owned() } else { format!("{walked}.{name}") };
        // Indices, after the first bracket: `0]`, or `0][1]`.
        for index in indices.split_terminator('[').filter(|_| !indices.is_empty()) {
            let index = index.strip_suffix(']').and_then(|digits| digits.parse::<usize>().ok());
            let index = index.ok_or_else(|| fault("has a bracket without a number, as in [0]".to_owned()))?;
            let length = place.as_array().map_or(0, Vec::len);
            place = place
                .get_mut(index)
                .ok_or_else(|| fault(format!("`{walked}` has {length} entries; they count from 0")))?;
            walked = format!("{walked}[{index}]");
        }
    }
    *place = value;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn after(path: &str, value: Value) -> Result<Value, String> {
        let mut root = json!({"app": {"cores": 1}, "settings": [{"pods": 1}, {"pods": 2}]});
        put(&mut root, path, value).map(|()| root).map_err(|fault| fault.to_string())
    }

    #[test]
    fn a_place_is_written_whatever_was_there() {
        assert_eq!(after("app.cores", json!(2)).unwrap()["app"], json!({"cores": 2}));
        assert_eq!(after("pods.init", json!("2s")).unwrap()["pods"], json!({"init": "2s"}));
        assert_eq!(after("settings[1].pods", json!(8)).unwrap()["settings"][1], json!({"pods": 8}));
        assert_eq!(after("app", Value::Null).unwrap()["app"], Value::Null);
    }

    #[test]
    fn a_place_that_is_none_is_refused() {
        assert_eq!(
            after("app.cores.more", json!(2)).unwrap_err(),
            "app.cores.more: `app.cores` is a single value and has nothing below it"
        );
        assert_eq!(
            after("settings[2].pods", json!(8)).unwrap_err(),
            "settings[2].pods: `settings` has 2 entries; they count from 0"
        );
        assert_eq!(
            after("settings[x]", json!(8)).unwrap_err(),
            "settings[x]: has a bracket without a number, as in [0]"
        );
        assert_eq!(
            after(".app", json!(8)).unwrap_err(),
            ".app: is not a place, such as app.service-time or settings[0].pods"
        );
    }
}
