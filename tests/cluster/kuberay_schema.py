"""The fields of KubeRay's `ray.io/v1` and of Kubernetes that deploy/kuberay uses, closed, so that a misspelt one fails.

KubeRay's CRDs are on no package index, so these stand in for them; docs/cluster.md says what was checked and how.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Metadata(Part):
    name: str = Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)


class SecretKey(Part):
    name: str
    optional: bool = False


class EnvFrom(Part):
    secretRef: SecretKey


class Variable(Part):
    name: str
    value: str


class Port(Part):
    containerPort: int
    name: str


class Amounts(Part):
    cpu: str
    memory: str
    gpu: str = Field(default="0", alias="nvidia.com/gpu")


class Resources(Part):
    requests: Amounts
    limits: Amounts


class Mount(Part):
    name: str
    mountPath: str


class Profile(Part):
    type: Literal["Unconfined"]


class SecurityContext(Part):
    procMount: Literal["Unmasked"]
    seccompProfile: Profile
    appArmorProfile: Profile


class Container(Part):
    name: str
    image: str
    ports: list[Port] = []
    env: list[Variable]
    envFrom: list[EnvFrom]
    resources: Resources
    volumeMounts: list[Mount]
    securityContext: SecurityContext | None = None


class EmptyDir(Part):
    medium: Literal["Memory"] | None = None
    sizeLimit: str


class Claim(Part):
    claimName: str


class Volume(Part):
    name: str
    emptyDir: EmptyDir | None = None
    persistentVolumeClaim: Claim | None = None


class Toleration(Part):
    key: str
    operator: Literal["Exists"]
    effect: Literal["NoSchedule"]


class PodSecurity(Part):
    fsGroup: int


class PodSpec(Part):
    containers: list[Container]
    volumes: list[Volume]
    terminationGracePeriodSeconds: int
    nodeSelector: dict[str, str] = {}
    tolerations: list[Toleration] = []
    hostUsers: bool = True
    securityContext: PodSecurity | None = None


class PodMetadata(Part):
    annotations: dict[str, str] = {}


class Template(Part):
    metadata: PodMetadata = PodMetadata()
    spec: PodSpec


class HeadGroup(Part):
    serviceType: Literal["ClusterIP"]
    rayStartParams: dict[str, str]
    template: Template


class WorkerGroup(Part):
    groupName: str
    replicas: int
    minReplicas: int
    maxReplicas: int
    rayStartParams: dict[str, str]
    template: Template


class Auth(Part):
    mode: Literal["token"]


class ClusterSpec(Part):
    rayVersion: str
    authOptions: Auth
    enableInTreeAutoscaling: bool
    headGroupSpec: HeadGroup
    workerGroupSpecs: list[WorkerGroup]


class RayCluster(Part):
    apiVersion: Literal["ray.io/v1"]
    kind: Literal["RayCluster"]
    metadata: Metadata
    spec: ClusterSpec


class Submitter(Part):
    backoffLimit: int


class JobSpec(Part):
    clusterSelector: dict[str, str]
    entrypoint: str
    backoffLimit: int
    submitterConfig: Submitter
    runtimeEnvYAML: str


class RayJob(Part):
    apiVersion: Literal["ray.io/v1"]
    kind: Literal["RayJob"]
    metadata: Metadata
    spec: JobSpec


class StorageAmount(Part):
    storage: str


class ClaimResources(Part):
    requests: StorageAmount


class ClaimSpec(Part):
    accessModes: list[Literal["ReadWriteOnce", "ReadWriteMany"]]
    resources: ClaimResources


class PersistentVolumeClaim(Part):
    apiVersion: Literal["v1"]
    kind: Literal["PersistentVolumeClaim"]
    metadata: Metadata
    spec: ClaimSpec


Manifest = Annotated[RayCluster | RayJob | PersistentVolumeClaim, Field(discriminator="kind")]
