/* SPDX-License-Identifier: Apache-2.0 */
/* The checks of daemon/doctor.h as an answer. */
#include "daemon/control-json.h"
#include "daemon/control.h"
#include "daemon/doctor.h"
#include "daemon/server.h"
#include "shm/base.h"

int doctor_put(const struct checks *c, json_object *out)
{
	json_object *all = json_object_new_array();

	if (!all)
		return -ENOMEM;
	json_object_object_add(out, "checks", all);
	for (unsigned i = 0; i < c->n; i++) {
		const struct check *one = &c->item[i];
		json_object *o = json_object_new_object();

		if (!o)
			return -ENOMEM;
		json_object_array_add(all, o);
		json_add_text(o, "name", one->name);
		json_add_text(o, "verdict", check_verdict_name(one->verdict));
		json_add_text(o, "text", one->text);
		if (one->remedy[0])
			json_add_text(o, "remedy", one->remedy);
	}
	return 0;
}

int control_doctor(void *arg, json_object *in, json_object *out, struct varlink_error *e)
{
	FREE_MEMORY struct checks *checks = malloc(sizeof(*checks));

	const struct server *s = arg;
	const char *const none[] = { NULL };
	int r = json_check_keys(in, none, e);

	if (r < 0)
		return r;
	if (!checks)
		return -ENOMEM;
	doctor_look(s, checks);
	doctor_devices(&s->config, s, checks);
	return doctor_put(checks, out);
}
