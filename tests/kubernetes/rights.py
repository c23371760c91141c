"""The rights that Swell needs, as the chart gives them: tests on a real control plane have no others."""

from chart import objects_of, one
from control_plane import SWELL_USER
from lightkube import Client
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.models.rbac_v1 import RoleRef, Subject
from lightkube.resources.rbac_authorization_v1 import ClusterRole, ClusterRoleBinding, Role, RoleBinding


def give_rights(client: Client, namespace: str) -> None:
    """Let Swell's user do this, in one namespace and with nodes; the spec asks for all that needs rights of its own."""
    metadata = ObjectMeta(name=f"swell-{namespace}")
    group = "rbac.authorization.k8s.io"
    subjects = [Subject(kind="User", name=SWELL_USER, apiGroup=group)]
    place = {"name": "c", "kind": "kubernetes", "images": {"llama.cpp": "a"}, "prefetch": {"images": True}}
    objects = objects_of({"spec": {"providers": [place]}})
    client.create(
        Role.from_dict({"metadata": {"name": metadata.name}, "rules": one(objects, "Role", "swell")["rules"]})
    )
    role = RoleRef(apiGroup=group, kind="Role", name=metadata.name or "")
    client.create(RoleBinding(metadata=metadata, roleRef=role, subjects=subjects))
    client.create(
        ClusterRole.from_dict({"metadata": {"name": metadata.name}, "rules": one(objects, "ClusterRole")["rules"]})
    )
    role = RoleRef(apiGroup=group, kind="ClusterRole", name=metadata.name or "")
    client.create(ClusterRoleBinding(metadata=metadata, roleRef=role, subjects=subjects))
