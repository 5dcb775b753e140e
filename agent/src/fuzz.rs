//! What arbitrary bytes are put to: one function for each reader of the agent that meets strangers. Pure; `tests/fuzz` calls
//! them.

use std::collections::BTreeSet;

use k3k_expose_proto::FromAgent;
use k3k_expose_proto::line;
use k3k_expose_proto::message::{Object, Put, Unusable};
use k8s_openapi::api::core::v1;
use k8s_openapi::api::networking::v1::Ingress;

use crate::project::{Projected, ingress, project};

/// An object of the virtual cluster, and the line that is made of it.
///
/// # Errors
/// What did not hold.
pub fn projection(bytes: &[u8]) -> Result<(), &'static str> {
    let admitted = BTreeSet::from(["example.com/admitted".to_owned()]);
    if let Ok(service) = serde_json::from_slice::<v1::Service>(bytes) {
        crosses(project(&service, &admitted))?;
    }
    if let Ok(ingress) = serde_json::from_slice::<Ingress>(bytes) {
        crosses(ingress::project(&ingress))?;
    }
    Ok(())
}

/// What is wanted is understood by the other side as it was meant.
fn crosses(projected: Projected) -> Result<(), &'static str> {
    let Projected::Wanted { key, uid, object } = projected else {
        return Ok(());
    };
    if let Object::Service(service) = &object
        && service.annotations.keys().any(|key| key != "example.com/admitted")
    {
        return Err("an annotation that was not admitted");
    }
    let put = Put { key, uid, hash: object.hash(), seen: 0, unusable: Unusable::default(), object };
    let said = FromAgent::Put(put);
    let Ok(line) = line::encode(&said) else {
        return Ok(());
    };
    match line::decode::<FromAgent>(line.strip_suffix(b"\n").unwrap_or(&line)) {
        Ok(heard) if heard == said => Ok(()),
        Ok(_) => Err("it was heard otherwise than it was said"),
        Err(_) => Err("it was said and not understood"),
    }
}
