/* The only file that knows Python: a module with one function that gives a capsule. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "example_store.h"

static void freed(PyObject *capsule) {
    dx_store_v1 *api = PyCapsule_GetPointer(capsule, DX_CAPSULE);
    if (api) free_store(api->self);
}

static PyObject *open_store(PyObject *module, PyObject *nothing) {
    (void)module, (void)nothing;
    store *s = make_store();
    return s ? PyCapsule_New(&s->api, DX_CAPSULE, freed) : PyErr_NoMemory();
}

static PyMethodDef methods[] = {{"open_store", open_store, METH_NOARGS, "A new, empty store in a capsule."}, {NULL, NULL, 0, NULL}};
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "example_store_c", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_example_store_c(void) { return PyModule_Create(&definition); }
