//! Validates JSON against an OpenAPI document as strictly as possible: a member that the document does not define is an
//! error as well.

use serde_json::Value;

/// The errors of `value` under `schema`, each with its place. Supports the keywords that the document uses.
pub fn violations(document: &Value, schema: &Value, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    check(document, schema, value, "", &mut found);
    found
}

fn check(document: &Value, schema: &Value, value: &Value, place: &str, found: &mut Vec<String>) {
    let schema = resolve(document, schema);
    if let Some(parts) = schema["allOf"].as_array() {
        for part in parts {
            check(document, part, value, place, found);
        }
        return;
    }
    if !schema["type"].is_null() && !types(schema).any(|name| is_of(name, value)) {
        return found.push(format!("{place}: {value} is no {}", schema["type"]));
    }
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        found.push(format!("{place}: {value} is none of {allowed:?}"));
    }
    let (number, minimum) = (value.as_f64(), schema["minimum"].as_f64());
    if number
        .zip(minimum)
        .is_some_and(|(number, minimum)| number < minimum)
    {
        found.push(format!("{place}: {value} is too small"));
    }
    if let Some(items) = value.as_array() {
        for (index, item) in items.iter().enumerate() {
            check(
                document,
                &schema["items"],
                item,
                &format!("{place}/{index}"),
                found,
            );
        }
    }
    if let Some(members) = value.as_object() {
        for name in schema["required"].as_array().into_iter().flatten() {
            if !members.contains_key(name.as_str().unwrap()) {
                found.push(format!("{place}: {name} is missing"));
            }
        }
        for (name, member) in members {
            let place = format!("{place}/{name}");
            let named = &schema["properties"][name];
            let schema = if named.is_null() {
                &schema["additionalProperties"]
            } else {
                named
            };
            if schema.is_object() {
                check(document, schema, member, &place, found);
            }
        }
    }
}

/// The members of `value` that `schema` does not define.
pub fn undefined_members(document: &Value, schema: &Value, value: &Value) -> Vec<String> {
    let known = names(document, schema);
    let members = value.as_object().into_iter().flatten();
    members
        .map(|(name, _)| name.clone())
        .filter(|name| !known.contains(name))
        .collect()
}

fn names(document: &Value, schema: &Value) -> Vec<String> {
    let schema = resolve(document, schema);
    let own = schema["properties"].as_object().into_iter().flatten();
    let mut names: Vec<String> = own.map(|(name, _)| name.clone()).collect();
    for part in schema["allOf"].as_array().into_iter().flatten() {
        names.extend(self::names(document, part));
    }
    names
}

/// The target of a reference.
pub fn resolve<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        Some(reference) => document
            .pointer(reference.strip_prefix('#').unwrap())
            .unwrap_or_else(|| panic!("{reference} has no target")),
        None => value,
    }
}

fn types(schema: &Value) -> impl Iterator<Item = &str> {
    let several = schema["type"].as_array().into_iter().flatten();
    several.chain([&schema["type"]]).filter_map(Value::as_str)
}

fn is_of(name: &str, value: &Value) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => panic!("{name} is no type"),
    }
}
