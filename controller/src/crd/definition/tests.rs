use super::*;

fn schema() -> Value {
    let definition = serde_json::to_value(definition()).unwrap();
    definition.pointer("/spec/versions/0/schema/openAPIV3Schema").unwrap().clone()
}

/// Calls `see` with every schema within one, and its path.
fn walk(schema: &Value, path: &str, see: &mut dyn FnMut(&str, &Value)) {
    see(path, schema);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        walk(property, &format!("{path}.{name}"), see);
    }
    for inner in ["items", "additionalProperties"] {
        if schema[inner].is_object() {
            walk(&schema[inner], &format!("{path}[]"), see);
        }
    }
}

#[test]
fn every_schema_is_structural_and_every_field_described() {
    let whole = schema();
    for part in ["spec", "status"] {
        walk(&whole["properties"][part], part, &mut |path, schema| {
            assert!(
                schema["type"].is_string() || schema["x-kubernetes-int-or-string"] == true,
                "{path}: {schema}"
            );
            assert!(schema["nullable"].is_null(), "{path}");
            let is_element = path.ends_with("[]");
            assert!(is_element || schema["description"].is_string(), "{path} has no description");
            if let Some(format) = schema["format"].as_str() {
                assert!(["int32", "int64", "double", "date-time"].contains(&format), "{path}: {format}");
            }
            for other in ["oneOf", "anyOf", "allOf", "$ref"] {
                assert!(schema[other].is_null(), "{path}: {other}");
            }
        });
    }
    assert_eq!(whole["required"], json!(["spec"]));
    let spec = &whole["properties"]["spec"];
    assert_eq!(spec["required"], json!(["scaleTargetRef"]));
    assert_eq!(spec["properties"]["interception"]["default"], "Auto");
    assert_eq!(spec["properties"]["minReplicas"]["maximum"], json!(2_147_483_647.0));
    assert_eq!(spec["properties"]["activationScale"]["minimum"], json!(2.0));
}

#[test]
fn status_is_a_subresource_and_columns_are_those_people_read() {
    let definition = serde_json::to_value(definition()).unwrap();
    let version = &definition["spec"]["versions"][0];
    assert_eq!(version["subresources"], json!({"status": {}}));
    let columns = version["additionalPrinterColumns"].as_array().unwrap();
    let names: Vec<&str> = columns.iter().map(|column| column["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["Target", "Min", "Max", "Replicas", "Wanted", "In-Flight", "Why", "Age"]);
    assert_eq!(columns[6]["priority"], 1);
}
