//! Gives shared schemas a name: a schema with a title becomes the component of that name, and a reference takes its place.
//!
//! Generated clients have a type per name. Without names, each operation would have its own.

use serde::ser::Error;
use serde_json::{Map, Value, json};

/// Members that hold data instead of schemas.
const DATA: [&str; 4] = ["default", "enum", "example", "examples"];

/// Moves every schema with a title to the components.
///
/// # Errors
///
/// Two different schemas have the same title.
pub(super) fn name_shared(document: &mut Value) -> Result<(), serde_json::Error> {
    let mut named = Map::new();
    for part in ["paths", "components"] {
        if let Some(part) = document.get_mut(part) {
            name(part, &mut named)?;
        }
    }
    let schemas = document.pointer_mut("/components/schemas");
    let Some(schemas) = schemas.and_then(Value::as_object_mut) else {
        return Ok(());
    };
    for (title, schema) in named {
        if schemas.insert(title.clone(), schema).is_some() {
            return Err(twice(&title));
        }
    }
    Ok(())
}

fn name(value: &mut Value, named: &mut Map<String, Value>) -> Result<(), serde_json::Error> {
    match value {
        Value::Array(items) => items.iter_mut().try_for_each(|item| name(item, named)),
        Value::Object(members) => {
            for (member, value) in members.iter_mut() {
                if !DATA.contains(&member.as_str()) {
                    name(value, named)?;
                }
            }
            let Some(Value::String(title)) = members.get("title") else {
                return Ok(());
            };
            let title = title.clone();
            members.remove("title");
            let reference = json!({"$ref": format!("#/components/schemas/{title}")});
            let schema = std::mem::replace(value, reference);
            match named.insert(title.clone(), schema.clone()) {
                Some(other) if other != schema => Err(twice(&title)),
                _ => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

fn twice(title: &str) -> serde_json::Error {
    serde_json::Error::custom(format!("two schemas have the name {title}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(second: &str) -> Value {
        json!({
            "info": {"title": "headcount"},
            "paths": {"/a": {"parameters": [
                {"name": "one", "schema": {"title": "Flag", "type": "string"}, "example": {"title": "data"}},
                {"name": "two", "schema": {"title": "Flag", "type": second}},
            ]}},
            "components": {"schemas": {"Problem": {"properties": {"title": {"type": "string"}}}}},
        })
    }

    #[test]
    fn a_schema_with_a_title_is_a_component() {
        let mut document = document("string");
        name_shared(&mut document).unwrap();
        let flag = json!({"$ref": "#/components/schemas/Flag"});
        let parameters = &document["paths"]["/a"]["parameters"];
        assert_eq!(
            (&parameters[0]["schema"], &parameters[1]["schema"]),
            (&flag, &flag)
        );
        assert_eq!(parameters[0]["example"]["title"], "data");
        assert_eq!(
            document["components"]["schemas"],
            json!({"Flag": {"type": "string"}, "Problem": {"properties": {"title": {"type": "string"}}}})
        );
        assert_eq!(document["info"]["title"], "headcount");
    }

    #[test]
    fn two_schemas_cannot_have_one_name() {
        assert!(name_shared(&mut document("integer")).is_err());
    }
}
