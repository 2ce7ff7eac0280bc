# cython: language_level=3


cdef class WorkResult:
    cdef readonly str instance
    cdef readonly long long execution_id
    cdef readonly long long activity_id
    cdef readonly bint ok
    cdef readonly str payload
    cdef readonly object row_id
    cdef readonly str token


cdef class Turn:
    cdef readonly str instance
    cdef readonly str lease
    cdef public object execution
    cdef readonly list messages     # [(row id, work item text, attempt)]
    cdef readonly list results      # [WorkResult]
    cdef public long long attempt
    cdef readonly str name
    cdef readonly str version
    cdef readonly str status
    cdef readonly long long execution_id
    cdef readonly long long last_event_id


cdef tuple decode(str text)
