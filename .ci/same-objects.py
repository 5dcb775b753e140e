"""Whether two YAML files hold the same Kubernetes objects, whatever their order."""

import sys

import yaml


def objects(path):
    with open(path) as file:
        documents = [document for document in yaml.safe_load_all(file) if document]
    named = {(one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"]): one for one in documents}
    assert len(named) == len(documents), f"{path} names an object twice"
    return named


left, right = (objects(path) for path in sys.argv[1:3])
differ = sorted(str(key) for key in left.keys() | right.keys() if left.get(key) != right.get(key))
if differ:
    sys.exit("\n".join(["objects differ between " + " and ".join(sys.argv[1:3]), *differ]))
print(f"{len(left)} objects are the same")
