"""The rights that Swell needs, as docs/kubernetes.md lists them: tests on a real control plane have no others."""

from control_plane import SWELL_USER
from lightkube import Client
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.models.rbac_v1 import PolicyRule, RoleRef, Subject
from lightkube.resources.rbac_authorization_v1 import ClusterRole, ClusterRoleBinding, Role, RoleBinding

IN_NAMESPACE = (
    PolicyRule(apiGroups=["apps"], resources=["deployments"], verbs=["list", "watch", "create", "patch", "delete"]),
    PolicyRule(apiGroups=[""], resources=["pods"], verbs=["list", "watch", "patch", "delete"]),
    PolicyRule(apiGroups=[""], resources=["pods/log"], verbs=["get"]),
    PolicyRule(apiGroups=[""], resources=["secrets"], verbs=["list", "create", "patch", "delete"]),
    PolicyRule(apiGroups=["policy"], resources=["poddisruptionbudgets"], verbs=["create", "patch", "delete"]),
)
IN_CLUSTER = (PolicyRule(apiGroups=[""], resources=["nodes"], verbs=["list", "watch"]),)


def give_rights(client: Client, namespace: str) -> None:
    """Let Swell's user do this, in one namespace and with nodes."""
    metadata = ObjectMeta(name=f"swell-{namespace}")
    group = "rbac.authorization.k8s.io"
    subjects = [Subject(kind="User", name=SWELL_USER, apiGroup=group)]
    client.create(Role(metadata=metadata, rules=list(IN_NAMESPACE)))
    role = RoleRef(apiGroup=group, kind="Role", name=metadata.name or "")
    client.create(RoleBinding(metadata=metadata, roleRef=role, subjects=subjects))
    client.create(ClusterRole(metadata=metadata, rules=list(IN_CLUSTER)))
    role = RoleRef(apiGroup=group, kind="ClusterRole", name=metadata.name or "")
    client.create(ClusterRoleBinding(metadata=metadata, roleRef=role, subjects=subjects))
