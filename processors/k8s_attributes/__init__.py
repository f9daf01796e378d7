"""``k8s_attributes``: says of which pod, container and workload a resource is, and which pod is at the other end of a span.

:mod:`.api_server` and :mod:`.reflector` follow what the API server says, :mod:`.json_stream` reads it an object at a time;
:mod:`.pods` makes of each what is kept. :mod:`.pod_table` finds pods by their identities, :mod:`.peer_index` by address and time.
:mod:`.processor` puts both into what passes.
"""
