//! `openapi.json` and the table of routes say the same.

use std::collections::{BTreeMap, BTreeSet};

use simd_json::OwnedValue;
use simd_json::prelude::*;

use super::routes::{Method, ROUTES, Route};

/// What tools rely on: by path and method, the operation's id, whether it wants a key, path and query parameters,
/// statuses.
type Contract = BTreeMap<(String, String), (String, bool, BTreeSet<String>, BTreeSet<String>, BTreeSet<String>)>;

fn described() -> OwnedValue {
    let mut text = super::http::DESCRIPTION.as_bytes().to_vec();
    simd_json::to_owned_value(&mut text).unwrap()
}

fn text(value: &OwnedValue, name: &str) -> String {
    value.get_str(name).unwrap_or_else(|| panic!("{name} in {value}")).to_owned()
}

fn contract_of_description() -> Contract {
    let mut contract = Contract::new();
    for (path, methods) in described().get_object("paths").unwrap().iter() {
        for (method, operation) in methods.as_object().unwrap().iter() {
            let parameters = operation.get_array("parameters").cloned().unwrap_or_default();
            let of = |place: &str| {
                let here = parameters.iter().filter(|parameter| text(parameter, "in") == place);
                here.map(|parameter| text(parameter, "name")).collect()
            };
            let keyed = !operation.get_array("security").unwrap().is_empty();
            let statuses = operation.get_object("responses").unwrap().keys().cloned().collect();
            let row = (text(operation, "operationId"), keyed, of("path"), of("query"), statuses);
            contract.insert((path.clone(), method.clone()), row);
        }
    }
    contract
}

fn contract_of_routes() -> Contract {
    let row = |route: &Route| {
        let method = match route.method {
            Method::Get => "get",
            Method::Post => "post",
        };
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let path = route.parameter().map(|(_, name)| name.to_owned()).into_iter().collect();
        let statuses = route.statuses.iter().map(u16::to_string).collect();
        ((route.path.into(), method.into()), (route.name.into(), route.keyed, path, owned(route.query), statuses))
    };
    ROUTES.iter().map(row).collect()
}

/// Paths, methods, names, keys, parameters and statuses agree in both directions.
#[test]
fn description_and_routes_agree() {
    assert_eq!(contract_of_description(), contract_of_routes());
    assert_eq!(contract_of_routes().len(), ROUTES.len());
}

/// A POST has a body, every answer says what it means, and every reference leads somewhere.
#[test]
fn the_description_is_complete() {
    let description = described();
    assert_eq!(text(&description, "openapi"), "3.1.0");
    for (path, methods) in description.get_object("paths").unwrap().iter() {
        for (method, operation) in methods.as_object().unwrap().iter() {
            assert_eq!(method == "post", operation.contains_key("requestBody"), "{path}");
            for (status, response) in operation.get_object("responses").unwrap().iter() {
                assert!(text(response, "description").len() > 3, "{path} {status}");
                assert!(!response.get_object("content").unwrap().is_empty(), "{path} {status}");
            }
        }
    }
    let schemas = description.get("components").unwrap().get_object("schemas").unwrap();
    let mut seen = BTreeSet::new();
    references(&description, &mut seen);
    assert_eq!(seen, schemas.keys().map(|name| format!("#/components/schemas/{name}")).collect());
}

fn references(value: &OwnedValue, seen: &mut BTreeSet<String>) {
    for (name, inner) in value.as_object().into_iter().flat_map(|object| object.iter()) {
        if name == "$ref" {
            seen.insert(inner.as_str().unwrap().to_owned());
        }
        references(inner, seen);
    }
    value.as_array().into_iter().flatten().for_each(|inner| references(inner, seen));
}
