// SPDX-License-Identifier: MIT OR GPL-2.0-only
//
// Sends connections that a cgroup's processes make to a service's address straight to one of its
// endpoints, by changing the address while the system call that names it runs. No packet is
// touched. src/direct/ loads these programs and fills the maps; what both sides agree on are the
// structs below, whose layouts src/direct/layout.rs writes and reads byte by byte.
//
// Addresses are four words in network order, those of IPv4 mapped into IPv6 (::ffff:a.b.c.d), so
// that one key serves both kinds of socket.
//
// Needs Linux 5.11.

#include <stdbool.h>
#include <linux/bpf.h>
#include <linux/in.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

// Binary search over at most 4096 endpoints.
#define STEPS 13

struct service {
	__u64 scope;
	__u32 address[4];
	__be16 port;
	__u16 protocol;
	__u32 zero;
};

// What a set begins with, at index 0.
struct header {
	// Whose set it is. An entry of `services` may be given to another service between its lookup
	// and its use, for the kernel recycles entries at once.
	struct service service;
	__u32 count;
	__u32 total;
};

// An endpoint, at 1 to `count`, in ascending order of `id`.
struct slot {
	// The endpoint's name for as long as it stays with the service, whatever set it is in.
	__u64 id;
	__u32 address[4];
	__be16 port;
	__u16 zero;
	// The sum of the weights up to and including this one.
	__u32 upto;
	__u64 chosen;
};

_Static_assert(sizeof(struct header) == sizeof(struct slot), "both are elements of a set");

// A socket and an address that it talks to.
struct talk {
	__u64 cookie;
	__u32 address[4];
	__be16 port;
	__u16 zero;
	__u32 zero_too;
};

// What a program knows of the cgroup it is attached to.
struct attachment {
	__u64 scope;
	__u64 cgroup;
};

struct shown {
	// Whose program has put it there.
	__u64 cgroup;
	__u32 address[4];
	__be16 port;
	__u16 zero;
	__u32 zero_too;
};

// A datagram socket without a peer, and a service that it has sent to.
struct habit {
	__u64 cookie;
	struct service service;
};

// Sets are never changed but exchanged as a whole, so nobody sees half of one.
struct {
	__uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct service);
	__array(values, struct {
		__uint(type, BPF_MAP_TYPE_ARRAY);
		__uint(max_entries, 1);
		__uint(map_flags, BPF_F_INNER_MAP);
		// Sizes, for clang 14 leaves out of BTF the types that only an inner map names.
		__uint(key_size, sizeof(__u32));
		__uint(value_size, sizeof(struct slot));
	});
} services SEC(".maps");

// Which services the processes of a cgroup see.
struct {
	__uint(type, BPF_MAP_TYPE_CGROUP_STORAGE);
	__type(key, struct bpf_cgroup_storage_key);
	__type(value, struct attachment);
} attachments SEC(".maps");

// The service address to show in place of an endpoint's. When it is full, the sockets that have
// not asked for the longest time see the endpoint itself. What comes from an endpoint to a socket
// that sends to it by both names cannot be told apart: it has the service's address.
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 32768);
	__type(key, struct talk);
	__type(value, struct shown);
} names SEC(".maps");

// The endpoint that a habit has led to. When it is full, those that have not sent for the longest
// time are given an endpoint anew.
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 32768);
	__type(key, struct habit);
	__type(value, __u64);
} habits SEC(".maps");

static __always_inline struct slot *element(void *set, __u32 index)
{
	return bpf_map_lookup_elem(set, &index);
}

// An endpoint at random, each as often as its weight says; none if all weights are 0.
static __always_inline struct slot *pick(void *set, const struct header *header)
{
	__u32 low = 1, high = header->count;
	__u32 point = ((__u64)bpf_get_prandom_u32() * header->total) >> 32;

	if (!high || !header->total)
		return 0;
	for (int step = 0; step < STEPS && low < high; step++) {
		__u32 middle = (low + high) / 2;
		struct slot *slot = element(set, middle);

		if (!slot)
			return 0;
		if (slot->upto > point)
			high = middle;
		else
			low = middle + 1;
	}
	return element(set, low);
}

static __always_inline struct slot *find(void *set, const struct header *header, __u64 id)
{
	__u32 low = 1, high = header->count;
	struct slot *found;

	for (int step = 0; step < STEPS && low < high; step++) {
		__u32 middle = (low + high) / 2;
		struct slot *slot = element(set, middle);

		if (!slot)
			return 0;
		if (slot->id >= id)
			high = middle;
		else
			low = middle + 1;
	}
	found = high ? element(set, low) : 0;
	return found && found->id == id ? found : 0;
}

static __always_inline bool same_address(const __u32 *a, const __u32 *b)
{
	return a[0] == b[0] && a[1] == b[1] && a[2] == b[2] && a[3] == b[3];
}

static __always_inline bool same_service(const struct service *a, const struct service *b)
{
	return a->scope == b->scope && same_address(a->address, b->address) &&
	       a->port == b->port && a->protocol == b->protocol;
}

static __always_inline bool is_loopback(const __u32 *address)
{
	if (address[0] || address[1])
		return false;
	if (address[2] == bpf_htonl(0xffff))
		return (address[3] & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000);
	return !address[2] && address[3] == bpf_htonl(1);
}

// What an address of the process's is in the maps.
static __always_inline void mapped(__u32 *address, __u32 ip4)
{
	address[0] = 0;
	address[1] = 0;
	address[2] = bpf_htonl(0xffff);
	address[3] = ip4;
}

// Whether the socket is bound to a loopback address, from which no other host can be reached.
static __always_inline bool bound_to_loopback(struct bpf_sock_addr *ctx, bool six)
{
	struct bpf_sock *sk = ctx->sk;
	__u32 source[4];

	if (!sk)
		return false;
	if (six) {
		source[0] = sk->src_ip6[0];
		source[1] = sk->src_ip6[1];
		source[2] = sk->src_ip6[2];
		source[3] = sk->src_ip6[3];
	} else {
		mapped(source, sk->src_ip4);
	}
	return is_loopback(source);
}

static __always_inline void destination(struct bpf_sock_addr *ctx, bool six, __u32 *address)
{
	if (six) {
		address[0] = ctx->user_ip6[0];
		address[1] = ctx->user_ip6[1];
		address[2] = ctx->user_ip6[2];
		address[3] = ctx->user_ip6[3];
	} else {
		mapped(address, ctx->user_ip4);
	}
}

static __always_inline void redirect(struct bpf_sock_addr *ctx, bool six, const __u32 *address,
				     __be16 port)
{
	if (six) {
		ctx->user_ip6[0] = address[0];
		ctx->user_ip6[1] = address[1];
		ctx->user_ip6[2] = address[2];
		ctx->user_ip6[3] = address[3];
	} else {
		ctx->user_ip4 = address[3];
	}
	ctx->user_port = port;
}

static __always_inline struct attachment *attachment(void)
{
	return bpf_get_local_storage(&attachments, 0);
}

static __always_inline void *set_of(struct bpf_sock_addr *ctx, bool six, struct service *service)
{
	service->scope = attachment()->scope;
	service->protocol = ctx->protocol;
	service->port = ctx->user_port;
	destination(ctx, six, service->address);
	return service->scope ? bpf_map_lookup_elem(&services, service) : 0;
}

// Goes to `slot`, and remembers what the process believes.
static __always_inline void go(struct bpf_sock_addr *ctx, bool six, __u64 cookie,
			       const struct service *service, const struct slot *slot)
{
	struct talk talk = { .cookie = cookie, .port = slot->port };
	struct shown shown = { .cgroup = attachment()->cgroup, .port = service->port };
	struct shown *known;

	__builtin_memcpy(talk.address, slot->address, sizeof(talk.address));
	__builtin_memcpy(shown.address, service->address, sizeof(shown.address));
	known = bpf_map_lookup_elem(&names, &talk);
	if (!known || known->cgroup != shown.cgroup || known->port != shown.port ||
	    !same_address(known->address, shown.address))
		bpf_map_update_elem(&names, &talk, &shown, BPF_ANY);
	redirect(ctx, six, slot->address, slot->port);
}

static __always_inline int connect(struct bpf_sock_addr *ctx, bool six)
{
	struct service service = {};
	void *set = set_of(ctx, six, &service);
	__u64 cookie = bpf_get_socket_cookie(ctx);
	struct talk talk = { .cookie = cookie, .port = service.port };
	struct header *header;
	struct shown *shown;
	struct slot *slot;

	if (set) {
		header = (struct header *)element(set, 0);
		slot = header && same_service(&header->service, &service) ? pick(set, header) : 0;
		if (slot && (is_loopback(slot->address) || !bound_to_loopback(ctx, six))) {
			__sync_fetch_and_add(&slot->chosen, 1);
			go(ctx, six, cookie, &service, slot);
			return 1;
		}
	}
	// A socket that goes to the endpoint by itself is to see the endpoint. But it may have been
	// sent there a moment ago, by the program of a cgroup below.
	__builtin_memcpy(talk.address, service.address, sizeof(talk.address));
	shown = bpf_map_lookup_elem(&names, &talk);
	if (shown && shown->cgroup == attachment()->cgroup)
		bpf_map_delete_elem(&names, &talk);
	return 1;
}

static __always_inline int send(struct bpf_sock_addr *ctx, bool six)
{
	struct habit habit = {};
	void *set = set_of(ctx, six, &habit.service);
	struct header *header;
	struct slot *slot;
	__u64 *id;

	if (!set)
		return 1;
	header = (struct header *)element(set, 0);
	if (!header || !same_service(&header->service, &habit.service))
		return 1;
	habit.cookie = bpf_get_socket_cookie(ctx);
	id = bpf_map_lookup_elem(&habits, &habit);
	slot = id ? find(set, header, *id) : 0;
	if (!slot) {
		slot = pick(set, header);
		if (!slot || (!is_loopback(slot->address) && bound_to_loopback(ctx, six)))
			return 1;
		__sync_fetch_and_add(&slot->chosen, 1);
		bpf_map_update_elem(&habits, &habit, &slot->id, BPF_ANY);
	}
	go(ctx, six, habit.cookie, &habit.service, slot);
	return 1;
}

// Shows the service's address in place of the endpoint's that the kernel has put there.
static __always_inline int show(struct bpf_sock_addr *ctx, bool six)
{
	struct talk talk = { .cookie = bpf_get_socket_cookie(ctx), .port = ctx->user_port };
	struct shown *shown;

	destination(ctx, six, talk.address);
	shown = bpf_map_lookup_elem(&names, &talk);
	if (shown)
		redirect(ctx, six, shown->address, shown->port);
	return 1;
}

#define HOOK(kind, number, six, what)                          \
	SEC("cgroup/" #kind #number)                           \
	int kind##number(struct bpf_sock_addr *ctx)            \
	{                                                      \
		return what(ctx, six);                         \
	}

HOOK(connect, 4, false, connect)
HOOK(connect, 6, true, connect)
HOOK(sendmsg, 4, false, send)
HOOK(sendmsg, 6, true, send)
HOOK(recvmsg, 4, false, show)
HOOK(recvmsg, 6, true, show)
HOOK(getpeername, 4, false, show)
HOOK(getpeername, 6, true, show)

char LICENSE[] SEC("license") = "Dual MIT/GPL";
