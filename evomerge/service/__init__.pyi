from .settings import ServiceSettings as ServiceSettings
